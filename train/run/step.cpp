#include "train/run/step.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "kernels/ops.h"

namespace routescope::train {

namespace {

/// Rounded to f32: the sum of squares is right to f64's rounding, in which its order shows, so that the norm hardly
/// ever depends on how the gradients are cut into buckets and shared between ranks.
double gradient_norm(double squares, kernels::DType storage) {
  const double norm = std::sqrt(squares);
  return storage == kernels::DType::f32 ? static_cast<double>(static_cast<float>(norm)) : norm;
}

/// What gradients are multiplied by, so that their norm is at most `most` (0: any).
double clip(double norm, double most) {
  return most > 0 ? std::min(1.0, most / (norm + 1e-6)) : 1.0;
}

}  // namespace

SequenceRange sequences_of_rank(std::int64_t sequences_per_step, std::int64_t micro_batch,
                                const kernels::Place& place) {
  const std::int64_t passes = sequences_per_step / micro_batch;
  return {passes * place.rank / place.size * micro_batch, passes * (place.rank + 1) / place.size * micro_batch};
}

StepResult train_step(model::Model& model, AdamW& optimizer, kernels::Tensor gradients, model::Pass& pass,
                      const data::Batches& batches, kernels::Communicator& communicator, const StepSpec& spec,
                      const StepHooks& hooks) {
  if (gradients.numel() != model.layout().total())
    throw std::invalid_argument("train_step: gradients are not laid out like the parameters");
  const kernels::Stream& stream = pass.stream();
  const auto tokens = static_cast<double>(batches.sequences_per_step() * pass.seq_len());
  const SequenceRange mine = sequences_of_rank(batches.sequences_per_step(), pass.batch(), communicator.place());

  kernels::fill(gradients, 0.0, stream);
  GradientSum sum = optimizer.sum(gradients);
  bool interrupted = false;
  // On CUDA a micro-batch computes while the next one is fetched; take_loss() is where the host waits.
  for (std::int64_t begin = mine.begin; begin < mine.end && !interrupted; begin += pass.batch()) {
    const data::Batch batch = batches.get(spec.batch, begin, begin + pass.batch());
    model::PassHooks between_ranks;
    if (communicator.size() > 1 && begin == mine.begin)
      between_ranks.needed = [&](std::int64_t end) { optimizer.need(end, stream); };
    if (communicator.size() > 1 && begin + pass.batch() == mine.end)
      between_ranks.complete = [&](std::int64_t from) { sum.complete_from(from, stream); };
    pass.accumulate(batch.inputs, batch.targets, 1.0 / tokens, gradients, between_ranks);
    interrupted = hooks.interrupted();
  }
  hooks.meanwhile();
  sum.finish(stream);

  // What every rank must know to do the same as all others.
  double sums[] = {pass.take_loss(), optimizer.squares(gradients, stream), interrupted ? 1.0 : 0.0};
  communicator.all_reduce(sums, kernels::Reduction::sum, "loss and gradient norm");

  StepResult result;
  result.loss = sums[0] / tokens;
  result.grad_norm = gradient_norm(sums[1], gradients.dtype);
  if (sums[2] > 0) {
    result.outcome = StepOutcome::interrupted;
  } else if (!std::isfinite(result.loss) || !std::isfinite(result.grad_norm)) {
    result.outcome = StepOutcome::not_finite;
  } else {
    optimizer.update(gradients, clip(result.grad_norm, spec.grad_clip), spec.learning_rate, spec.step, stream);
  }
  return result;
}

}  // namespace routescope::train
