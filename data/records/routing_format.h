// The datasets of routing.h5 as a file holds them: made here, opened here, for the record's writer and its reader
// (data/formats/routing.md).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/hdf5/hdf5.h"
#include "data/hdf5/journal.h"
#include "data/records/routing_record.h"

namespace routescope::data::routing_format {

inline constexpr const char* filetype = "routescope routing";
inline constexpr std::int64_t version_major = 1;
inline constexpr std::int64_t version_minor = 1;

/// A table whose rows are steps: one dataset of steps and others as long. The steps are written after the rest and read
/// before it, so their number is the number of complete rows, whatever the moment.
struct Table {
  hdf5::Dataset step;
  std::vector<hdf5::Dataset> columns;

  /// Of the paths, the last of which is that of the rows' checksums; a record of version 1.0 has none.
  static Table open(const hdf5::File& file, const std::string& step_path, const std::vector<std::string>& column_paths);
  bool has_checksums() const;
  void flush_columns();
  /// The rows are complete: their steps, and everything to the operating system. The file's journal takes steps too.
  void append_steps(hdf5::File& file, std::span<const std::int64_t> steps);
};

/// Root attribute of a record that salvage() made: the number of rows that were lost.
inline constexpr const char* salvaged = "salvaged_rows_lost";

inline const std::vector<std::string> snapshot_columns{
    "/tokens_seen", "/alpha_mean", "/alpha_std", "/alpha_entropy", "/source_rms", "/query", "/gain", "/bias", "/crc32"};
inline const std::vector<std::string> alpha_columns{"/alpha", "/alpha_crc32"};
inline const std::vector<std::string> train_columns{
    "/train/tokens_seen",       "/train/loss",    "/train/lr",   "/train/grad_norm",
    "/train/tokens_per_second", "/train/seconds", "/train/crc32"};
inline const std::vector<std::string> valid_columns{"/valid/loss", "/valid/crc32"};

/// The four tables of a record.
struct Tables {
  Table snapshot, alpha, train, valid;
  explicit Tables(const hdf5::File& file);
  std::array<Table*, 4> all() { return {&snapshot, &alpha, &train, &valid}; }
};

/// Everything but rows, with the root attributes, flushed; the file's journal takes no more values from then on.
/// `created` empty: now. Returns what ties the journal to the file.
JournalMark create(hdf5::File& file, const RoutingRecordInfo& info, const std::string& created);
/// The fixed part again. Throws Error if the file is no routing record, or one of another major version.
RoutingRecordInfo read_info(const hdf5::File& file);

}  // namespace routescope::data::routing_format
