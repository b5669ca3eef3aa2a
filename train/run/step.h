// One training step, as the algorithm is written: accumulate gradients over micro-batches, add them up over ranks,
// clip, update.
#pragma once

#include <cstdint>
#include <functional>

#include "data/tokens/batches.h"
#include "kernels/comm/communicator.h"
#include "model/pass/model.h"
#include "model/pass/pass.h"
#include "train/optimizer/optimizer.h"

namespace routescope::train {

struct StepSpec {
  std::int64_t step = 0;   // number of the update: 1, 2, ...
  std::int64_t batch = 0;  // trains on Batches::get(batch, ...)
  double learning_rate = 0;
  double grad_clip = 0;  // 0: none
};

struct StepHooks {
  /// Runs once, while a CUDA device computes.
  std::function<void()> meanwhile = [] {};
  /// Asked between micro-batches; true abandons the step, for a run that must end soon.
  std::function<bool()> interrupted = [] { return false; };
};

enum class StepOutcome {
  updated,
  not_finite,   // the loss or a gradient is NaN or infinite: the parameters and moments are what they were
  interrupted,  // some rank abandoned it: likewise
};

struct StepResult {
  StepOutcome outcome = StepOutcome::updated;
  double loss = 0;       // mean nll of the step's tokens before the update, nats a token
  double grad_norm = 0;  // before clipping
};

/// The micro-batches of a step that a rank computes, in sequences: [begin, end) of sequences_per_step. Ranks differ by
/// one micro-batch at most.
struct SequenceRange {
  std::int64_t begin = 0, end = 0;
};
SequenceRange sequences_of_rank(std::int64_t sequences_per_step, std::int64_t micro_batch, const kernels::Place& place);

/// The same result on every rank. `gradients` is scratch, laid out like the parameters.
StepResult train_step(model::Model& model, AdamW& optimizer, kernels::Tensor gradients, model::Pass& pass,
                      const data::Batches& batches, kernels::Communicator& communicator, const StepSpec& spec,
                      const StepHooks& hooks = {});

}  // namespace routescope::train
