#include "train/plan.h"

#include <unistd.h>

#include <cstddef>
#include <vector>

#include "data/error.h"
#include "kernels/memory.h"
#include "model/activations.h"
#include "model/model.h"
#include "model/parameters.h"
#include "train/progress.h"
#include "train/throughput.h"

namespace routescope {

namespace {

constexpr double kMatrixRateSeconds = 1.0;

/// Counting a pass takes a model, whose parameters are really allocated: said before the system ends the process for
/// it.
void require_room_for_parameters(const TrainConfig& config) {
  const auto parameters = static_cast<double>(ParameterLayout(config.model).total());
  const double needed = parameters * static_cast<double>(size_of(DType::f32) + size_of(DType::bf16));
  const double present = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  if (needed > 0.9 * present) {
    throw Error("--plan: the parameters alone need {:.1f} GiB, expected at most 90 % of this machine's {:.1f} GiB",
                needed / (1 << 30), present / (1 << 30));
  }
}

/// The parts of a training pass, counted and not allocated.
std::vector<Arena::Part> pass_parts(const TrainConfig& config, const Model& model) {
  Arena planner(model.options().device);
  const AttentionShape shape{config.train.micro_batch, config.data.sequence_length, config.model.num_attention_heads,
                             config.model.num_key_value_heads, config.model.head_dim};
  Activations().take(planner, model, shape, true);
  return planner.parts();
}

}  // namespace

std::string plan_text(const TrainConfig& config) {
  const ModelOptions options = config.model_options();
  require_room_for_parameters(config);
  const Model model(config.model, options);
  const auto parameters = static_cast<std::size_t>(model.layout().total());

  std::vector<Arena::Part> parts{{"parameters", parameters * size_of(options.storage)}};
  if (options.operands != options.storage)
    parts.push_back({"parameters as bf16 operands", parameters * size_of(DType::bf16)});
  parts.push_back({"gradients", parameters * size_of(options.storage)});
  parts.push_back({"moments (AdamW)", 2 * parameters * size_of(options.storage)});
  for (const Arena::Part& part : pass_parts(config, model)) parts.push_back(part);

  const auto mebibytes = [](std::size_t bytes) { return static_cast<double>(bytes) / (1 << 20); };
  std::string text = fmt::format(
      "model        {}{}, {} layers, hidden size {}, {:.2f} M parameters ({:.2f} M in matrix products)\n",
      to_string(config.model.residual), config.model.routed() ? " " + to_string(config.model.source) : "",
      config.model.num_hidden_layers, config.model.hidden_size, static_cast<double>(model.layout().count()) / 1e6,
      static_cast<double>(matmul_parameters(config.model)) / 1e6);
  text += fmt::format("step         {} tokens: {} passes over {} sequences of {}\n", config.train.tokens_per_step,
                      config.sequences_per_step() / config.train.micro_batch, config.train.micro_batch,
                      config.data.sequence_length);
  text += "memory       MiB\n";
  std::size_t total = 0;
  for (const Arena::Part& part : parts) {
    text += fmt::format("  {:<34} {:>12.1f}\n", part.name, mebibytes(part.bytes));
    total += part.bytes;
  }
  text += fmt::format("  {:<34} {:>12.1f}\n", "total", mebibytes(total));

  const double flops = flops_per_token(config.model, config.data.sequence_length);
  const double rate = measure_matrix_rate(options, kMatrixRateSeconds);
  const double seconds = flops * static_cast<double>(config.train.tokens_per_step) / rate;
  text += fmt::format("arithmetic   {:.4g} FLOP a token, {:.4g} FLOP a step\n", flops,
                      flops * static_cast<double>(config.train.tokens_per_step));
  text +=
      fmt::format("matrix rate  {:.0f} GFLOP/s ({}, {}, measured now)\n", rate / 1e9, config.device, config.precision);
  text += fmt::format("step time    {:.3g} s at the full matrix rate, {:.3g} s at half of it\n", seconds, 2 * seconds);
  const auto steps = static_cast<double>(config.train.steps);
  text += fmt::format("run          {} steps, {:.4g} tokens: {} at the full matrix rate, {} at half of it\n",
                      config.train.steps, steps * static_cast<double>(config.train.tokens_per_step),
                      format_duration(steps * seconds), format_duration(2 * steps * seconds));
  return text;
}

}  // namespace routescope
