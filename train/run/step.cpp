#include "train/run/step.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <span>
#include <stdexcept>
#include <vector>

#include "data/base/error.h"
#include "kernels/device.h"
#include "kernels/ops.h"

namespace routescope::train {

namespace {

/// The norm from its square, rounded to f32. The last bits of the f64 sum depend on the order of summation, hence on
/// buckets and ranks; the rounding makes the norm almost always independent of them.
double gradient_norm(double squares, kernels::DType storage) {
  const double norm = std::sqrt(squares);
  return storage == kernels::DType::f32 ? static_cast<double>(static_cast<float>(norm)) : norm;
}

/// The factor that brings a gradient of this norm down to the norm `most` (0: no limit).
double clip(double norm, double most) {
  return most > 0 ? std::min(1.0, most / (norm + 1e-6)) : 1.0;
}

/// The time that a rank needs for its own gradients: where a step waits, it is not for this rank if others need longer.
class OwnTime {
 public:
  OwnTime(const kernels::Communicator& communicator, const kernels::Stream& stream)
      : communicator_(communicator), stream_(stream), waited_(communicator.traffic().seconds_waited) {
    if (stream_.device == kernels::Device::cuda) device_.emplace().start(stream_);
  }
  /// On a device it waits until the gradients are computed.
  double seconds() {
    if (device_) return device_->stop(stream_);
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begin_;
    return std::max(0.0, passed.count() - (communicator_.traffic().seconds_waited - waited_));
  }

 private:
  const kernels::Communicator& communicator_;
  const kernels::Stream& stream_;
  double waited_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  std::optional<kernels::StreamTimer> device_;
};

void describe_ranks(std::span<const double> seconds, data::TrainRow& row) {
  const auto slowest = std::ranges::max_element(seconds);
  row.slowest_rank = slowest - seconds.begin();
  row.rank_seconds_slowest = *slowest;
  std::vector<double> sorted(seconds.begin(), seconds.end());
  std::ranges::sort(sorted);
  row.rank_seconds_median = (sorted[(sorted.size() - 1) / 2] + sorted[sorted.size() / 2]) / 2;
}

}  // namespace

SequenceRange sequences_of_rank(std::int64_t sequences_per_step, std::int64_t micro_batch,
                                const kernels::Place& place) {
  const std::int64_t passes = sequences_per_step / micro_batch;
  return {passes * place.rank / place.size * micro_batch, passes * (place.rank + 1) / place.size * micro_batch};
}

StepResult train_step(model::Model& model, Optimizer& optimizer, kernels::Tensor gradients, model::Pass& pass,
                      const data::Batches& batches, kernels::Communicator& communicator, const StepSpec& spec,
                      const StepHooks& hooks) {
  if (gradients.numel() != model.layout().total())
    throw std::invalid_argument("train_step: gradients are not laid out like the parameters");
  const kernels::Stream& stream = pass.stream();
  ShardedParameters& parameters = optimizer.parameters();
  const auto tokens = static_cast<double>(batches.sequences_per_step() * pass.seq_len());
  const SequenceRange mine = sequences_of_rank(batches.sequences_per_step(), pass.batch(), communicator.place());

  // 1. Accumulate the gradient of the mean loss over this rank's micro-batches. On CUDA a micro-batch computes while
  // the host fetches the next one.
  OwnTime own_time(communicator, stream);
  kernels::fill(gradients, 0.0, stream);
  GradientSum sum = parameters.sum(gradients);
  StepResult result;
  bool interrupted = false;
  for (std::int64_t begin = mine.begin; begin < mine.end && !interrupted; begin += pass.batch()) {
    data::Batch batch;
    try {
      batch = batches.get(spec.batch, begin, begin + pass.batch());
    } catch (const data::Error& error) {
      // The other ranks go on to the sums, where they learn that this step is given up.
      result.input_error = error.what();
      interrupted = true;
      break;
    }
    model::PassHooks hooks_of_pass;
    // The first forward pass waits for the parameters of the last update, layer by layer.
    if (communicator.size() > 1 && begin == mine.begin)
      hooks_of_pass.needed = [&](std::int64_t end) { parameters.need(end, stream); };
    // The last backward pass starts the sums over ranks, bucket by bucket.
    if (communicator.size() > 1 && begin + pass.batch() == mine.end)
      hooks_of_pass.complete = [&](std::int64_t from) { sum.complete_from(from, stream); };
    pass.accumulate(batch.inputs, batch.targets, 1.0 / tokens, gradients, hooks_of_pass);
    interrupted = hooks.interrupted();
  }
  hooks.meanwhile();

  // 2. Sum over ranks: gradients, loss, squares of gradients, interruptions. The time of each rank goes with them.
  const double own_seconds = own_time.seconds();
  sum.finish(stream);
  std::vector<double> sums{pass.take_loss(), parameters.squares(gradients, stream), interrupted ? 1.0 : 0.0};
  const std::size_t times = sums.size();
  sums.resize(times + static_cast<std::size_t>(communicator.size()), 0.0);
  sums[times + static_cast<std::size_t>(communicator.rank())] = own_seconds;
  communicator.all_reduce(sums, kernels::Reduction::sum, "loss and gradient norm");

  // 3. Clip and update. All ranks have the same sums, so they decide the same.
  result.step = spec.step;
  describe_ranks(std::span(sums).subspan(times), result);
  result.learning_rate = spec.learning_rate;
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
