// Writing checkpoints: a model directory with the optimizer's state beside it (data/formats/checkpoint.md), complete or
// absent.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include "kernels/comm/communicator.h"
#include "model/pass/model.h"
#include "train/checkpoint/state_file.h"
#include "train/optimizer/optimizer.h"

namespace routescope::train {

/// Writes RUN/checkpoints/step-NNNNNNNN. Every rank writes its part into a temporary directory beside that name, syncs
/// it and reads it back; rank 0 writes MANIFEST.json last and renames the directory. An existing (damaged) checkpoint
/// of the same step is replaced. If any rank fails, every rank throws (Error if the process is alone, else
/// AgreedError); the message names the file, the system's reason and the last complete checkpoint. The temporary
/// directory is then removed, and other checkpoints are unchanged. All functions but vote(), completed() and
/// seconds_lost() are collective.
class CheckpointWriter {
 public:
  struct Options {
    bool async = true;            // begin() copies the numbers, and a thread writes them while training goes on
    std::int64_t keep = 0;        // number of newest checkpoints that are kept (CheckpointRetention); 0: all
    std::int64_t keep_state = 0;  // number of newest ones that keep the optimizer's state; 0: all
    kernels::DType weights_dtype = kernels::DType::f32;  // of those without it: f32 or bf16
    std::int64_t intact = -1;  // step of the checkpoint that the run resumed from, which was found intact; or -1
  };
  /// With `async` allocates checkpoint_host_bytes() of host memory. Where no rank's model has all f32 masters (ZeRO-1
  /// in bf16), rank 0 also allocates the model's part at each checkpoint, with or without `async`.
  CheckpointWriter(const std::filesystem::path& run_dir, const model::Model& model, Optimizer& optimizer,
                   kernels::Communicator& communicator, const Options& options);
  /// Gives up a checkpoint that is being written. Its temporary directory stays (remove_debris()).
  ~CheckpointWriter();

  /// Starts to write the model and the optimizer as they are now. First finishes a checkpoint that is being written.
  void begin(const TrainState& state);
  /// The state of this rank's part. After each step every rank passes the largest vote of all ranks to settle().
  enum Vote : int { nothing_to_do = 0, part_written = 1, still_writing = 2, failed = 3 };
  Vote vote() const;
  /// Completes the checkpoint if `largest_vote` says that every part is written. Throws if one failed.
  void settle(int largest_vote);
  /// Waits until the checkpoint that is being written is complete.
  void finish();

  /// Step of the newest complete checkpoint that this writer wrote, or -1.
  std::int64_t completed() const;
  /// Total seconds that training spent in begin(), settle() and finish().
  double seconds_lost() const;

 private:
  /// Waits for every rank's part and publishes the checkpoint.
  void complete();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Host memory that an asynchronous writer of one rank allocates: for `parameters` elements of the model (rank 0 alone
/// writes it) and `state` numbers of the optimizer's state that this rank writes.
std::size_t checkpoint_host_bytes(std::int64_t parameters, std::int64_t state, int rank);

}  // namespace routescope::train
