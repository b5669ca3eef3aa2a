// Checkpoints: a model directory with the optimizer's state beside it, complete or absent (data/formats/checkpoint.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <string>

#include "data/base/manifest.h"
#include "kernels/comm/communicator.h"
#include "model/pass/model.h"
#include "train/checkpoint/state_file.h"
#include "train/optimizer/optimizer.h"

namespace routescope::train {

/// Writes RUN/checkpoints/step-NNNNNNNN, every rank its part: in a temporary directory beside it, synced and read back,
/// MANIFEST.json last, then renamed. A checkpoint of the same step that is there already (a broken one) is replaced. If
/// any rank fails, every rank throws (Error where the process is alone, else AgreedError): the file, the system's
/// reason and which checkpoint still holds; the temporary directory is removed then and the other checkpoints are as
/// they were. All functions but vote(), completed() and seconds_lost() are collective.
class CheckpointWriter {
 public:
  struct Options {
    bool async = true;         // begin() copies what is to be written and a thread writes it while training goes on
    std::int64_t keep = 0;     // the newest `keep` that count stay (CheckpointRetention); 0: all
    std::int64_t intact = -1;  // step of a checkpoint known to be intact: the one that was resumed from
  };
  /// Asynchronous ones take checkpoint_host_bytes() of host memory, at once. Where no rank holds all f32 masters
  /// (ZeRO-1 in bf16), rank 0 takes what the model needs of it at each checkpoint instead, also of those that are not.
  CheckpointWriter(const std::filesystem::path& run_dir, const model::Model& model, AdamW& optimizer,
                   kernels::Communicator& communicator, const Options& options);
  /// Gives up what a thread writes; that stays out of sight (remove_debris()).
  ~CheckpointWriter();

  /// Starts writing the model and optimizer as they are now. Finishes the one under way first.
  void begin(const TrainState& state);
  /// What this rank has to say after the next step; the largest over ranks counts.
  enum Vote : int { nothing_to_do = 0, part_written = 1, still_writing = 2, failed = 3 };
  Vote vote() const;
  /// With the largest vote of all ranks: completes the checkpoint once every part is written. Throws where one failed.
  void settle(int largest_vote);
  /// Waits until the checkpoint under way is complete.
  void finish();

  /// Step of the newest complete checkpoint that this writer wrote, or -1.
  std::int64_t completed() const;
  /// Seconds that begin(), settle() and finish() took from training, all in all.
  double seconds_lost() const;

 private:
  /// Waits for every rank's part and makes the checkpoint one.
  void complete();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// What an asynchronous writer takes of a rank's host memory, at most: `parameters` elements of the flat array on rank
/// 0, which writes the model, and the moments of the `written` elements that this rank writes.
std::size_t checkpoint_host_bytes(std::int64_t parameters, std::int64_t written, int rank);

/// The newest checkpoint whose files are what its manifest says, on every rank; each rank reads its share of the files.
/// Rank 0 names every newer one that is not in the log. Throws (Error or AgreedError) if there are checkpoints and none
/// is intact. Collective. Those after step `at_most` are left aside.
std::optional<data::CheckpointEntry> newest_intact_checkpoint(
    const std::filesystem::path& run_dir, kernels::Communicator& communicator,
    std::int64_t at_most = std::numeric_limits<std::int64_t>::max());

/// Removes every checkpoint of a step after `step`, intact or not: those of a future that a run went back from. Each is
/// moved out of sight first. Of one process, while none is written. Throws Error if one stays.
void remove_checkpoints_after(const std::filesystem::path& run_dir, std::int64_t step);

/// Removes what an interrupted save or removal left behind. Of one process, before any writes.
void remove_debris(const std::filesystem::path& run_dir);

}  // namespace routescope::train
