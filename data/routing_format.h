// The datasets of routing.h5 as a file holds them: made here, opened here, for the record's writer and its reader
// (data/formats/routing.md).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "data/hdf5.h"
#include "data/routing_record.h"

namespace routescope::routing_format {

inline constexpr const char* filetype = "routescope routing";
inline constexpr std::int64_t version_major = 1;
inline constexpr std::int64_t version_minor = 0;

/// A table whose rows are steps: one dataset of steps and others as long. The steps are written after the rest and read
/// before it, so their number is the number of complete rows, whatever the moment.
struct Table {
  hdf5::Dataset step;
  std::vector<hdf5::Dataset> columns;

  /// Opens or lists /PREFIX{step_name, column_names...}.
  static Table open(const hdf5::File& file, const std::string& step_path, const std::vector<std::string>& column_paths);
  void flush_columns();
};

inline const std::vector<std::string> snapshot_columns{"/tokens_seen", "/alpha_mean", "/alpha_std", "/alpha_entropy",
                                                       "/source_rms",  "/query",      "/gain",      "/bias"};
inline const std::vector<std::string> alpha_columns{"/alpha"};
inline const std::vector<std::string> train_columns{
    "/train/tokens_seen", "/train/loss", "/train/lr", "/train/grad_norm", "/train/tokens_per_second", "/train/seconds"};
inline const std::vector<std::string> valid_columns{"/valid/loss"};

/// The four tables of a record.
struct Tables {
  Table snapshot, alpha, train, valid;
  explicit Tables(const hdf5::File& file);
  std::array<Table*, 4> all() { return {&snapshot, &alpha, &train, &valid}; }
};

/// Everything but rows, with the root attributes. `created` empty: now.
void create(hdf5::File& file, const RoutingRecordInfo& info, const std::string& created);
/// The fixed part again. Throws Error if the file is no routing record, or one of another major version.
RoutingRecordInfo read_info(const hdf5::File& file);

}  // namespace routescope::routing_format
