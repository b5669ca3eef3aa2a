// Which checkpoints of a run are kept (checkpoint.keep).
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <map>
#include <thread>
#include <vector>

#include "data/base/manifest.h"
#include "train/checkpoint/state_file.h"

namespace routescope::train {

/// Removes old checkpoints, on rank 0. The newest `keep` checkpoints that count are kept. A checkpoint counts if it was
/// read and found intact, and if it was not written while steps were skipped as not finite: the run may have to go back
/// behind such a step. Damaged checkpoints stay and do not count. Of step 0 the weights stay (data::initial_dir()).
/// Checkpoints of an earlier process are read in a thread, and training does not wait for it: nothing that depends on
/// them is removed before they were read.
class CheckpointRetention {
 public:
  /// `keep` = 0 keeps all. `intact`: step of a checkpoint that was just found intact, or -1.
  CheckpointRetention(std::filesystem::path run_dir, std::int64_t keep, std::int64_t intact);
  /// Stops reading.
  ~CheckpointRetention();
  CheckpointRetention(const CheckpointRetention&) = delete;
  CheckpointRetention& operator=(const CheckpointRetention&) = delete;

  /// A checkpoint of `state` is complete and was read back: removes what it makes superfluous.
  void written(const TrainState& state);
  /// Takes over what the thread has read, and removes what it makes superfluous.
  void update();

 private:
  void prune();
  void read(const std::vector<data::CheckpointEntry>& checkpoints, std::int64_t wanted);

  std::filesystem::path run_dir_;
  std::int64_t keep_;
  std::int64_t newest_ = -1;             // step of the newest one written here that counts; later ones are not touched
  std::map<std::int64_t, bool> counts_;  // by step: whether a checkpoint counts, where this is known
  std::map<std::int64_t, bool> read_;    // the same as the thread finds it; belongs to the thread until done_
  std::atomic<bool> done_ = false, given_up_ = false;
  std::thread thread_;
};

}  // namespace routescope::train
