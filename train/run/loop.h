// A run from its first step, or from its newest intact checkpoint, to its last.
#pragma once

#include <cstdint>
#include <functional>

#include "kernels/comm/communicator.h"
#include "train/config/config.h"

namespace routescope::train {

struct LoopOptions {
  /// Asked after every step (and once before the first); a number other than 0 ends the run there, with a checkpoint.
  std::function<int(std::int64_t step)> stop = [](std::int64_t) { return 0; };
  /// Asked between micro-batches; true gives up the step under way. `stop` should say why then.
  std::function<bool()> interrupted = [] { return false; };
  /// How long the matrix rate is measured at the start, seconds; 0: not, and no share of it is shown.
  double matrix_rate_seconds = 0.3;
};

struct LoopResult {
  std::int64_t step = 0;  // finished updates
  int stopped = 0;        // what `stop` returned; 0: the run is finished
};

/// `config` must be resolved. Step s means after s updates; at each step, in this order: training row, validation,
/// routing snapshot, record flushed and synced, checkpoint. So whatever a checkpoint's step promises is in the record,
/// and a run killed anywhere resumes to the same bits. Throws Error.
///
/// Every rank of `communicator` calls it with the same configuration; rank 0 writes record and log. What any rank's
/// `stop` returns stops them all. Throws AgreedError where every rank knows of the failure.
LoopResult run_training(const TrainConfig& config, kernels::Communicator& communicator, const LoopOptions& options);
/// In a process alone.
LoopResult run_training(const TrainConfig& config, const LoopOptions& options = {});

}  // namespace routescope::train
