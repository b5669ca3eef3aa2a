// routing.h5: what a run's routing and training did, step by step (data/formats/routing.md). Written in SWMR mode, so
// that others can read it while the run goes on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/base/error.h"

namespace routescope::data {

/// The fixed part of a record. A standard model has no reads: the axes then have length 0.
struct RoutingRecordInfo {
  std::vector<std::string> reads;     // "0.attn", ...
  std::vector<std::int32_t> layer;    // per read, -1 for final
  std::vector<std::string> sublayer;  // per read
  std::vector<std::string> depth;     // per read
  std::vector<std::string> sources;   // "embedding", "block_1", ..., "current"
  std::int64_t hidden_size = 0;
  std::int64_t sequences = 0, positions = 0;
  std::vector<std::int32_t> probe_tokens;  // [sequences, positions]
  std::string config;                      // the resolved YAML text
  std::string git_commit;
};

/// One routing snapshot; a source that a read does not have is NaN.
struct RoutingSnapshot {
  std::int64_t step = 0, tokens_seen = 0;
  std::vector<float> alpha_mean, alpha_std;  // [read, source]
  std::vector<float> alpha_entropy;          // [read], nats
  std::vector<float> source_rms;             // [read, source]
  std::vector<float> query, gain;            // [read, d]
  std::vector<float> bias;                   // [read]
};

struct TrainRow {
  std::int64_t step = 0;  // 1 after the first update
  std::int64_t tokens_seen = 0;
  double loss = 0;  // nats a token
  double learning_rate = 0;
  double grad_norm = 0;
  double tokens_per_second = 0;
  double seconds = 0;  // of this step
};

struct ValidRow {
  std::int64_t step = 0;
  double loss = 0;  // nats a token
};

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
  /// Takes up a record after an interruption: rows after `step` are dropped (they will be computed again), and `info`
  /// must describe the same record. Works on what a killed writer left and, with what stands in FILE.journal, on a file
  /// whose structure is damaged. Throws RecordDamaged where rows up to `step` are lost.
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

/// The whole record except per-token alpha, read at once. Works while a run writes. Throws Error.
struct RoutingRecordView {
  RoutingRecordInfo info;
  std::vector<RoutingSnapshot> snapshots;
  std::vector<std::int64_t> alpha_steps;
  std::vector<TrainRow> train;
  std::vector<ValidRow> valid;

  static RoutingRecordView load(const std::filesystem::path& file);
  /// alpha [read, sequences, positions, source] at alpha_steps[index].
  static std::vector<float> load_alpha(const std::filesystem::path& file, std::int64_t index);
};

}  // namespace routescope::data
