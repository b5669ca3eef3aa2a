// A run: it starts at its first step, or at its newest intact checkpoint, and ends at its last step.
#pragma once

#include <cstdint>
#include <functional>

#include "kernels/comm/communicator.h"
#include "train/config/config.h"

namespace routescope::train {

struct LoopOptions {
  /// Called after every step and once before the first. A number other than 0 ends the run there, with a checkpoint.
  std::function<int(std::int64_t step)> stop = [](std::int64_t) { return 0; };
  /// Called between micro-batches; true gives up the current step. `stop` must then return a number other than 0.
  std::function<bool()> interrupted = [] { return false; };
  /// Seconds for which the matrix rate is measured at the start; 0: it is not measured, and no share of it is shown.
  double matrix_rate_seconds = 0.3;
};

struct LoopResult {
  std::int64_t step = 0;  // finished updates
  int stopped = 0;        // what `stop` returned; 0: the run is finished
};

/// `config` must be resolved. Step s is the state after s updates. At each step, in this order: training row,
/// validation, routing snapshot, record flushed and synced, checkpoint. So a checkpoint's step and all before it are in
/// the record, and a run that is killed at any point resumes to the same bits. Throws Error.
///
/// Every rank of `communicator` calls it with the same configuration; rank 0 writes the record and the log. If `stop`
/// of any rank returns a number other than 0, all ranks stop. Throws AgreedError where every rank knows the error.
LoopResult run_training(const TrainConfig& config, kernels::Communicator& communicator, const LoopOptions& options);
/// For a process without other ranks.
LoopResult run_training(const TrainConfig& config, const LoopOptions& options = {});

}  // namespace routescope::train
