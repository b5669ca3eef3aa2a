#include "train/step.h"

#include <cmath>

#include "data/error.h"
#include "kernels/ops.h"

namespace routescope {

StepResult train_step(Model& model, AdamW& optimizer, Tensor gradients, Pass& pass, const Batches& batches,
                      std::int64_t step, double learning_rate, double grad_clip,
                      const std::function<void()>& meanwhile) {
  const std::int64_t sequences = batches.sequences_per_step();
  const auto tokens = static_cast<double>(sequences * pass.seq_len());

  fill(gradients, 0.0, pass.stream());
  // On CUDA a micro-batch computes while the next one is fetched; take_loss() is where the host waits.
  for (std::int64_t begin = 0; begin < sequences; begin += pass.batch()) {
    const Batch batch = batches.get(step - 1, begin, begin + pass.batch());
    pass.accumulate(batch.inputs, batch.targets, 1.0 / tokens, gradients);
  }

  if (meanwhile) meanwhile();

  const double nll = pass.take_loss();
  const StepResult result{.loss = nll / tokens, .grad_norm = optimizer.clip(gradients, grad_clip, pass.stream())};
  if (!std::isfinite(result.loss) || !std::isfinite(result.grad_norm)) {
    throw Error(
        "step {}: loss is {} and the gradient's norm {}, expected finite numbers; the run stops with what was written "
        "before this step (a lower train.optimizer.learning_rate or train.grad_clip may help)",
        step, result.loss, result.grad_norm);
  }

  optimizer.update(model.flat(), gradients, learning_rate, step, pass.stream());
  model.refresh_operands();
  return result;
}

}  // namespace routescope
