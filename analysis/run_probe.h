// Probing the saved steps of a run: which are there, which are new, and the record that keeps the results.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "analysis/record.h"
#include "data/manifest.h"
#include "kernels/communicator.h"

namespace routescope {

/// The last step that a run's config.yaml asks for (train.steps). Throws Error if it does not say.
std::int64_t planned_steps(const std::filesystem::path& run_dir);

/// The checksum of DIR/model.safetensors: a checkpoint's manifest knows it, elsewhere it is computed.
std::string model_sha256(const std::filesystem::path& model_dir);

/// What to probe with, as the command line gave it.
struct ProbeRequest {
  std::string tokens;            // FILE; empty: the run's own
  std::int64_t sequences = 0;    // 0: all
  std::int64_t positions = 256;  // of a token shard
  std::uint64_t seed = 1;
};

/// The tokens, seed and model of a request, for a model directory (of run `run_dir`, if that is not empty).
ProbeIdentity identify(const ProbeRequest& request, const std::filesystem::path& model_dir,
                       const std::filesystem::path& run_dir);

/// A record in a file, and the one way to fill it. Ranks hold the same record and call row() together; rank 0 writes
/// the file.
class RecordedProbe {
 public:
  /// Throws Error if the file holds what was measured otherwise. An empty `file` keeps the record in memory.
  RecordedProbe(std::filesystem::path file, const ProbeIdentity& identity, const ModelOptions& options,
                Communicator& communicator);

  bool has(std::int64_t step) const { return record_.find(step) != nullptr; }
  /// The row of a step: the recorded one, or a new one, which is then saved. A checkpoint is verified first. Throws
  /// Error if the recorded row is that of other weights.
  const ProbeRow& row(std::int64_t step, const std::filesystem::path& model_dir);
  const AnalysisRecord& record() const { return record_; }

 private:
  std::filesystem::path file_;
  ModelOptions options_;
  Communicator& communicator_;
  AnalysisRecord record_;
};

}  // namespace routescope
