// Which checkpoints of a run stay (checkpoint.keep), and what is known of those that an earlier process wrote.
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

/// Rank 0's. Only checkpoints that were read and found intact count, and of them only those that were not written amid
/// steps left out as not finite: behind those a run may have to go back. Those that an earlier process wrote are read
/// in a thread, and nothing waits for it: what may go later stays until then.
class CheckpointRetention {
 public:
  /// The newest `keep` stay (0: all). `intact`: step of one that was read and found intact just now, or -1.
  CheckpointRetention(std::filesystem::path run_dir, std::int64_t keep, std::int64_t intact);
  /// Gives up reading.
  ~CheckpointRetention();
  CheckpointRetention(const CheckpointRetention&) = delete;
  CheckpointRetention& operator=(const CheckpointRetention&) = delete;

  /// A checkpoint of `state` became complete and was read back: older ones may go now.
  void written(const TrainState& state);
  /// Removes what may go by what was read meanwhile.
  void update();

 private:
  void prune();
  void read(const std::vector<data::CheckpointEntry>& checkpoints, std::int64_t wanted);

  std::filesystem::path run_dir_;
  std::int64_t keep_;
  std::int64_t newest_ = -1;             // that was written and counts: later ones are left alone
  std::map<std::int64_t, bool> counts_;  // of steps whose checkpoints are known: whether they count
  std::map<std::int64_t, bool> read_;    // the same, by the thread: to be looked at once it is done
  std::atomic<bool> done_ = false, given_up_ = false;
  std::thread thread_;
};

}  // namespace routescope::train
