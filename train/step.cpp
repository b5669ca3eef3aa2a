#include "train/step.h"

#include <cmath>

#include "kernels/ops.h"

namespace routescope {

SequenceRange sequences_of_rank(std::int64_t sequences_per_step, std::int64_t micro_batch, const Place& place) {
  const std::int64_t passes = sequences_per_step / micro_batch;
  return {passes * place.rank / place.size * micro_batch, passes * (place.rank + 1) / place.size * micro_batch};
}

StepResult train_step(Model& model, AdamW& optimizer, Tensor gradients, Pass& pass, const Batches& batches,
                      Communicator& communicator, const StepSpec& spec, const StepHooks& hooks) {
  const auto tokens = static_cast<double>(batches.sequences_per_step() * pass.seq_len());
  const SequenceRange mine = sequences_of_rank(batches.sequences_per_step(), pass.batch(), communicator.place());

  fill(gradients, 0.0, pass.stream());
  bool interrupted = false;
  // On CUDA a micro-batch computes while the next one is fetched; take_loss() is where the host waits.
  for (std::int64_t begin = mine.begin; begin < mine.end && !interrupted; begin += pass.batch()) {
    const Batch batch = batches.get(spec.batch, begin, begin + pass.batch());
    pass.accumulate(batch.inputs, batch.targets, 1.0 / tokens, gradients);
    interrupted = hooks.interrupted();
  }
  hooks.meanwhile();

  StepResult result;
  result.loss = pass.take_loss() / tokens;
  result.grad_norm = optimizer.clip(gradients, spec.grad_clip, pass.stream());
  result.votes = hooks.votes();
  if (interrupted) {
    result.outcome = StepOutcome::interrupted;
  } else if (!std::isfinite(result.loss) || !std::isfinite(result.grad_norm)) {
    result.outcome = StepOutcome::not_finite;
  } else {
    optimizer.update(model.flat(), gradients, spec.learning_rate, spec.step, pass.stream());
    model.refresh_operands();
  }
  return result;
}

}  // namespace routescope
