// The run directory: one process at a time, one configuration for good.
#pragma once

#include <filesystem>
#include <optional>

#include "train/config/config.h"

namespace routescope::train {

/// Makes the directory if it is not there and holds it until destruction (or until the process ends, however it ends).
class RunLock {
 public:
  /// Throws Error if the directory cannot be made or written, or another process holds it.
  explicit RunLock(const std::filesystem::path& run_dir);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  int file_ = -1;
};

/// The configuration of the run that the directory holds, if it holds one.
std::optional<TrainConfig> held_config(const std::filesystem::path& run_dir);

/// Compares `config` with the one that the directory holds. Throws Error naming the first key that would make it
/// another run (train/README.md). A directory without record and checkpoints holds nothing to compare with.
void check_config(const std::filesystem::path& run_dir, const TrainConfig& config);

/// Writes config.yaml if there is none or it says something else.
void write_config(const std::filesystem::path& run_dir, const TrainConfig& config);

}  // namespace routescope::train
