#include "train/bench/step/subject.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <random>

#include "data/base/error.h"
#include "data/tokens/shard_writer.h"
#include "kernels/device.h"
#include "train/run/step.h"

namespace routescope::train {

double median(std::vector<double> values) {
  std::ranges::sort(values);
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

data::TokenStream random_stream(std::int64_t vocab_size, std::int64_t tokens) {
  const std::filesystem::path file =
      std::filesystem::temp_directory_path() / fmt::format("routescope-bench-{}.bin", ::getpid());
  std::mt19937_64 random(1);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens));
  for (std::int32_t& id : ids) id = static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(vocab_size));
  data::ShardWriter writer(file, vocab_size);
  writer.append(ids);
  writer.finish();
  data::TokenStream stream({file.string()}, vocab_size);
  stream.hold(tokens);
  std::filesystem::remove(file);
  return stream;
}

std::size_t training_bytes(const model::ModelConfig& config, const model::ModelOptions& options, std::int64_t batch,
                           std::int64_t seq_len, const model::PassOptions& pass_options) {
  std::size_t bytes = 0;
  for (const kernels::Arena::Part& part : training_arrays(config, options, {}, {}, 1)) bytes += part.bytes;
  for (const kernels::Arena::Part& part :
       model::Pass::plan_memory(config, options, batch, seq_len, model::Pass::Kind::train, pass_options)) {
    bytes += part.bytes;
  }
  return bytes;
}

Subject::Subject(const model::ModelConfig& config, const model::ModelOptions& options, std::int64_t batch,
                 std::int64_t seq_len, const model::PassOptions& pass_options)
    : model_(config, options),
      optimizer_(model_, {}, *communicator_, {}),
      gradients_(options.storage, options.device, {model_.layout().total()}),
      pass_(model_, batch, seq_len, model::Pass::Kind::train, pass_options) {
  model_.initialize(1);
}

void timed_step(model::Model& model, Optimizer& optimizer, kernels::Tensor gradients, model::Pass& pass,
                const data::Batches& batches, kernels::Communicator& communicator, std::int64_t step) {
  const StepResult result = train_step(model, optimizer, gradients, pass, batches, communicator,
                                       {.step = step, .batch = step - 1, .learning_rate = 1e-4, .grad_clip = 1.0});
  if (!result.input_error.empty()) throw data::Error("{}", result.input_error);
  if (result.outcome != StepOutcome::updated)
    throw data::Error(
        "step {}: found a loss of {} and a gradient norm of {}, expected finite ones: nothing was updated", step,
        result.loss, result.grad_norm);
}

double Subject::step_seconds(const data::Batches& batches) {
  kernels::synchronize(pass_.stream());
  const auto begin = std::chrono::steady_clock::now();
  timed_step(model_, optimizer_, gradients_.tensor, pass_, batches, *communicator_, ++step_);
  kernels::synchronize(pass_.stream());
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace routescope::train
