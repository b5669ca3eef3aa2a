// One training step: accumulate gradients over micro-batches, sum them over ranks, clip, update.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "data/records/routing_rows.h"
#include "data/tokens/batches.h"
#include "kernels/comm/communicator.h"
#include "model/pass/model.h"
#include "model/pass/pass.h"
#include "train/optimizer/optimizer.h"

namespace routescope::train {

struct StepSpec {
  std::int64_t step = 0;   // number of the update: 1, 2, ...
  std::int64_t batch = 0;  // the step trains on Batches::get(batch, ...)
  double learning_rate = 0;
  double grad_clip = 0;  // largest gradient norm; 0: no clipping
};

struct StepHooks {
  /// Called once, while a CUDA device computes.
  std::function<void()> meanwhile = [] {};
  /// Called between micro-batches; true gives up the step, for a run that must end soon.
  std::function<bool()> interrupted = [] { return false; };
};

enum class StepOutcome {
  updated,
  not_finite,   // the loss or a gradient is NaN or infinite: parameters and optimizer state are unchanged
  interrupted,  // a rank gave up the step: parameters and optimizer state are unchanged
};

/// The step's row of the training record, as far as the step itself measures it: all but tokens_seen,
/// tokens_per_second and seconds.
struct StepResult : data::TrainRow {
  StepOutcome outcome = StepOutcome::updated;
  std::string input_error;  // of an interrupted step: why this rank could not read its tokens, or ""
};

/// The sequences [begin, end) of a step that a rank computes. The ranks' numbers of micro-batches differ by at most
/// one.
struct SequenceRange {
  std::int64_t begin = 0, end = 0;
};
SequenceRange sequences_of_rank(std::int64_t sequences_per_step, std::int64_t micro_batch, const kernels::Place& place);

/// Does one step and returns the same result on every rank, but for input_error. `gradients` is scratch, laid out like
/// the parameters.
StepResult train_step(model::Model& model, Optimizer& optimizer, kernels::Tensor gradients, model::Pass& pass,
                      const data::Batches& batches, kernels::Communicator& communicator, const StepSpec& spec,
                      const StepHooks& hooks = {});

}  // namespace routescope::train
