// The run directory: it is used by one process at a time, and its configuration does not change.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/base/files.h"
#include "train/config/config.h"
#include "train/config/lease.h"

namespace routescope::train {

/// Makes the directory if necessary and locks it until destruction or until the end of the process: by flock() on
/// DIR/lock, and where the file system has none by a Lease in DIR/leases.
class RunLock {
 public:
  /// Throws Error if the directory cannot be made or written, or another process has locked it.
  explicit RunLock(const std::filesystem::path& run_dir, LeaseTimes times = {});

  /// Throws Error if the lock was lost, as only a lease can be.
  void check() const;

 private:
  data::FileDescriptor file_;
  std::unique_ptr<Lease> lease_;
};

/// The configuration of the run in the directory, if there is one.
std::optional<TrainConfig> held_config(const std::filesystem::path& run_dir);

/// Throws Error if `file` is the config.yaml of a run in another directory than config.run.dir: the run was copied or
/// moved, or the path is relative to another working directory. A run.dir among the overrides says what is meant.
void check_place(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                 const TrainConfig& config);

/// Compares `config` with the configuration of the run in the directory. Throws Error with the first key that would
/// make it another run (train/README.md, "Resume"). A directory without a record and checkpoints has no run.
void check_config(const std::filesystem::path& run_dir, const TrainConfig& config);

/// Writes config.yaml unless it has the same text already.
void write_config(const std::filesystem::path& run_dir, const TrainConfig& config);

}  // namespace routescope::train
