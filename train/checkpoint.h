// Checkpoints: a model directory with the optimizer's state beside it, complete or absent (data/formats/checkpoint.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "data/manifest.h"
#include "kernels/communicator.h"
#include "model/model.h"
#include "train/optimizer.h"

namespace routescope {

/// What a checkpoint says besides numbers.
struct TrainState {
  std::int64_t step = 0;        // finished updates
  std::int64_t next_batch = 0;  // what update step + 1 trains on: Batches::get(next_batch, ...)
  std::int64_t skipped = 0;     // how many of the last steps, in a row, were left out as not finite
  std::int64_t tokens_seen = 0;
  std::int64_t seed = 0;
  std::string train_fingerprint, valid_fingerprint;  // TokenStream::fingerprint()
};

/// Writes RUN/checkpoints/step-NNNNNNNN, every rank its part: in a temporary directory beside it, synced, MANIFEST.json
/// last, then renamed. A checkpoint of the same step that is there already (a broken one) is replaced. If any rank
/// fails, every rank throws the same Error; the temporary directory is removed then and the other checkpoints are as
/// they were. All functions but vote() are collective.
class CheckpointWriter {
 public:
  struct Options {
    bool async = true;  // begin() copies what is to be written and a thread writes it while training goes on
    std::int64_t keep =
        0;  // after each the newest `keep` stay, and the newest intact one if it is none of them; 0: all
  };
  CheckpointWriter(const std::filesystem::path& run_dir, const Model& model, const AdamW& optimizer,
                   Communicator& communicator, const Options& options);
  /// Waits for what a thread writes; what is not complete then stays out of sight (remove_debris()).
  ~CheckpointWriter();

  /// Starts writing the model and optimizer as they are now. Finishes the one under way first.
  void begin(const TrainState& state);
  /// What this rank has to say at the next step (Votes::checkpoint, the largest over ranks counts).
  enum Vote : int { nothing_to_do = 0, part_written = 1, still_writing = 2, failed = 3 };
  Vote vote() const;
  /// With the largest vote of all ranks: completes the checkpoint once every part is written. Throws Error where one
  /// failed.
  void settle(int largest_vote);
  /// Waits until the checkpoint under way is complete.
  void finish();

  /// Step of the newest complete checkpoint that this writer wrote, or -1.
  std::int64_t completed() const;
  /// Seconds that begin(), settle() and finish() took from training, all in all.
  double seconds_lost() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The newest checkpoint whose files are what its manifest says. Every newer one that is not is reported in the log.
/// Throws Error if there are checkpoints and none is intact.
std::optional<CheckpointEntry> newest_intact_checkpoint(const std::filesystem::path& run_dir);

/// What the checkpoint's train_state says, without the moments. Throws Error.
TrainState read_train_state(const CheckpointEntry& checkpoint);
/// The moments. Throws Error for one that is absent or has another shape.
void read_moments(const CheckpointEntry& checkpoint, const Model& model, AdamW& optimizer);

/// Removes what an interrupted save or removal left behind.
void remove_debris(const std::filesystem::path& run_dir);
/// Removes all but the newest `keep` checkpoints.
void prune_checkpoints(const std::filesystem::path& run_dir, std::int64_t keep);

}  // namespace routescope
