// Writing routing.h5: what a run's routing and training did, step by step (data/formats/routing.md). It is written in
// SWMR mode, so that others can read it while the run goes on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "data/base/error.h"
#include "data/records/routing_rows.h"

namespace routescope::data {

/// Rows that should be in a record are damaged or absent. Nothing was changed.
struct RecordDamaged : Error {
  RecordDamaged(const std::filesystem::path& file, std::int64_t intact, std::int64_t wanted, const std::string& what);
  std::int64_t intact_step = 0;  // a checkpoint of this step or an earlier one can be resumed from; -1: none can
};

/// The writer. Throws Error on any failure; a record that is being created appears under its name only once it is
/// readable.
class RoutingRecord {
 public:
  /// Refuses to overwrite an existing file.
  static RoutingRecord create(const std::filesystem::path& file, const RoutingRecordInfo& info);
  /// Goes on with a record after an interruption. Rows after `step` are dropped (they will be computed again), and
  /// `info` must describe the same record. The rows are copied into a new file, which has every column of this version;
  /// rows of a file that lacks one have missing_value() in it. Works on what a killed writer left and, through
  /// FILE.journal, on a file whose structure is damaged. Throws RecordDamaged where rows up to `step` are lost.
  static RoutingRecord resume(const std::filesystem::path& file, const RoutingRecordInfo& info, std::int64_t step);
  RoutingRecord(RoutingRecord&&) noexcept;
  RoutingRecord& operator=(RoutingRecord&&) noexcept;
  ~RoutingRecord();

  void append(const RoutingSnapshot& snapshot);
  /// alpha [read, sequences, positions, source] at a step; stored as f16.
  void append_alpha(std::int64_t step, std::span<const float> alpha);
  void append(const TrainRow& row);
  void append(const ValidRow& row);
  /// Makes everything appended visible to readers; with `sync` also durable (fsync).
  void flush(bool sync = false);

 private:
  friend std::string salvage(const std::filesystem::path& file, const std::filesystem::path& output);
  struct Impl;
  explicit RoutingRecord(std::unique_ptr<Impl> impl);
  static RoutingRecord start(const std::filesystem::path& file, const RoutingRecordInfo& info,
                             const std::string& created, const std::function<void(Impl&)>& fill);
  std::unique_ptr<Impl> impl_;
};

/// Writes the rows of a damaged record that are intact into a new record. Returns a line on what was kept and lost.
/// Throws Error, if `output` exists or if nothing of the record can be read.
std::string salvage(const std::filesystem::path& file, const std::filesystem::path& output);

}  // namespace routescope::data
