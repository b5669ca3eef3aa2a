// Which checkpoints of a run are kept (checkpoint.keep), and which keep the optimizer's state (checkpoint.keep_state).
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

/// Numbers of newest checkpoints; 0: all.
struct Kept {
  std::int64_t checkpoints = 0, states = 0;
  bool any() const { return checkpoints > 0 || states > 0; }
};

/// Removes old checkpoints, on rank 0. The newest `checkpoints` ones that count are kept. A checkpoint counts if it was
/// read and found intact, and if it was not written while steps were skipped as not finite: the run may have to go back
/// behind such a step. Damaged checkpoints stay and do not count. Of step 0 the weights stay (data::initial_dir()).
/// The newest `states` of those that count and have a state keep it; older ones are left with their weights, intact or
/// not. So the run can always go on from a checkpoint that was found intact.
/// Checkpoints of an earlier process are read in a thread, and training does not wait for it: nothing that depends on
/// them is removed before they were read.
class CheckpointRetention {
 public:
  /// `intact`: step of a checkpoint that was just found intact, or -1.
  CheckpointRetention(std::filesystem::path run_dir, const Kept& kept, std::int64_t intact);
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
  Kept kept_;
  std::int64_t newest_ = -1;             // step of the newest one written here that counts; later ones are not touched
  std::map<std::int64_t, bool> counts_;  // by step: whether a checkpoint counts, where this is known
  std::map<std::int64_t, bool> read_;    // the same as the thread finds it; belongs to the thread until done_
  std::atomic<bool> done_ = false, given_up_ = false;
  std::thread thread_;
};

}  // namespace routescope::train
