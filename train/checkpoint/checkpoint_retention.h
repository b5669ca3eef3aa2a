// Which checkpoints of a run are kept (checkpoint.keep), and which keep the optimizer's state (checkpoint.keep_state).
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <thread>
#include <vector>

#include "data/base/manifest.h"
#include "kernels/tensor.h"
#include "train/checkpoint/state_file.h"

namespace routescope::train {

/// Numbers of newest checkpoints; 0: all.
struct Kept {
  std::int64_t checkpoints = 0, states = 0;
  kernels::DType weights = kernels::DType::f32;  // of those without a state: f32 or bf16
  bool any() const { return checkpoints > 0 || states > 0; }
};

/// Removes old checkpoints, on rank 0. The newest `checkpoints` ones that count are kept. A checkpoint counts if it was
/// read and found intact, and if it was not written while steps were skipped as not finite: the run may have to go back
/// behind such a step. Damaged checkpoints stay and do not count. Of step 0 the weights stay (data::initial_dir()).
/// The newest `states` of those that count and have a state keep it; older ones are left with their weights, intact or
/// not. So the run can always go on from a checkpoint that was found intact.
/// Weights are rounded in a thread. One that is damaged, or cannot be rounded, keeps all it has, and the log says so.
/// Checkpoints of an earlier process are read in a thread, and training does not wait for it: nothing that depends on
/// them is removed before they were read.
class CheckpointRetention {
 public:
  /// `intact`: step of a checkpoint that was just found intact, or -1.
  CheckpointRetention(std::filesystem::path run_dir, const Kept& kept, std::int64_t intact);
  /// Stops reading. Waits for the one that is being rounded and, unless an error ends the run, rounds the others that
  /// were written here.
  ~CheckpointRetention();
  CheckpointRetention(const CheckpointRetention&) = delete;
  CheckpointRetention& operator=(const CheckpointRetention&) = delete;

  /// A checkpoint of `state` is complete and was read back: removes what it makes superfluous.
  void written(const TrainState& state);
  /// Takes over what the thread has read, and removes what it makes superfluous.
  void update();

 private:
  void prune();
  void start(std::function<void()> work);
  void round(const data::CheckpointEntry& checkpoint);
  void read(const std::vector<data::CheckpointEntry>& checkpoints, std::int64_t wanted);

  std::filesystem::path run_dir_;
  Kept kept_;
  std::int64_t newest_ = -1;             // step of the newest one written here that counts; later ones are not touched
  std::int64_t first_ = -1;              // step of the first one written here, or resumed from
  std::map<std::int64_t, bool> counts_;  // by step: whether a checkpoint counts, where this is known
  std::map<std::int64_t, bool> read_;    // the same as the thread finds it; belongs to the thread until done_
  std::set<std::int64_t> not_rounded_;   // steps whose weights could not be; belongs to the thread while rounding_
  bool rounding_ = false;                // the thread rounds: no checkpoint may go away
  std::atomic<bool> done_ = false, given_up_ = false;
  std::thread thread_;
};

}  // namespace routescope::train
