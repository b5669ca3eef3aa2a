#include "train/plan.h"

#include <unistd.h>

#include <cstddef>
#include <utility>

#include "data/error.h"
#include "kernels/device.h"
#include "model/model.h"
#include "model/parameters.h"
#include "train/progress.h"
#include "train/run_directory.h"
#include "train/throughput.h"

namespace routescope {

namespace {

constexpr double kMatrixRateSeconds = 1.0;
// Of a device's memory for what its libraries take for themselves.
constexpr std::size_t kDeviceReserve = std::size_t{1} << 30;
constexpr const char* kRecomputeLevels[] = {"none", "swiglu", "norms", "attention"};

double gibibytes(std::size_t bytes) {
  return static_cast<double>(bytes) / (1 << 30);
}

/// What a run may take here: a CUDA device's free memory, or nine tenths of the machine's; 0 where no device answers.
std::size_t available_bytes(const std::string& device) {
  if (device == "cpu") {
    const auto present =
        static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    return present / 10 * 9;
  }
  if (!cuda_available()) return 0;
  const std::size_t free = device_info().free_bytes;
  return free > kDeviceReserve ? free - kDeviceReserve : 0;
}

}  // namespace

std::vector<Arena::Part> memory_parts(const TrainConfig& config) {
  const ModelOptions options = config.model_options();
  const auto parameters = static_cast<std::size_t>(ParameterLayout(config.model).total());
  const bool cast = options.operands != options.storage;
  std::vector<Arena::Part> parts{
      {cast ? "parameters (f32 master)" : "parameters", parameters * size_of(options.storage)}};
  if (cast) parts.push_back({"parameters as bf16 operands", parameters * size_of(DType::bf16)});
  parts.push_back({"gradients", parameters * size_of(options.storage)});
  parts.push_back({"moments (AdamW)", 2 * parameters * size_of(options.storage)});
  for (Arena::Part& part : Pass::plan_memory(config.model, options, config.train.micro_batch,
                                             config.data.sequence_length, Pass::Kind::train, config.pass_options()))
    parts.push_back(std::move(part));
  return parts;
}

std::size_t total_bytes(const std::vector<Arena::Part>& parts) {
  std::size_t total = 0;
  for (const Arena::Part& part : parts) total += part.bytes;
  return total;
}

std::string memory_table(const std::vector<Arena::Part>& parts) {
  const auto line = [](const std::string& name, std::size_t bytes) {
    return fmt::format("  {:<34} {:>12.1f}\n", name, static_cast<double>(bytes) / (1 << 20));
  };
  std::string text = "memory       MiB\n";
  for (const Arena::Part& part : parts) text += line(part.name, part.bytes);
  return text + line("total", total_bytes(parts));
}

std::int64_t largest_micro_batch(const TrainConfig& config, std::size_t bytes) {
  TrainConfig tried = config;
  for (std::int64_t batch = config.sequences_per_step(); batch > 0; --batch) {
    if (config.sequences_per_step() % batch != 0) continue;
    tried.train.micro_batch = batch;
    if (total_bytes(memory_parts(tried)) <= bytes) return batch;
  }
  return 0;
}

void resolve_recompute(TrainConfig& config) {
  const bool device = config.device == "cuda" && cuda_available();
  const bool choose = config.kernels.recompute == "auto";
  if (choose) config.kernels.recompute = "none";
  if (!device) return;
  const std::size_t available = available_bytes(config.device);
  if (const auto held = held_config(config.run.dir); choose && held && held->device == config.device) {
    config.kernels.recompute = held->kernels.recompute;
  } else if (choose) {
    for (const char* level : kRecomputeLevels) {
      config.kernels.recompute = level;
      if (total_bytes(memory_parts(config)) <= available) return;
    }
  }
  if (const std::size_t needed = total_bytes(memory_parts(config)); needed > available) {
    throw Error(
        "train.micro_batch: found {}, which needs {:.1f} GiB with kernels.recompute={}; {} has {:.1f} GiB to give: "
        "expected at most {}",
        config.train.micro_batch, gibibytes(needed), config.kernels.recompute, device_info().name, gibibytes(available),
        largest_micro_batch(config, available));
  }
}

std::string plan_text(const TrainConfig& config) {
  const ModelOptions options = config.model_options();
  const ParameterLayout layout(config.model);
  std::string text =
      fmt::format("model        {}{}, {} layers, hidden size {}, {:.2f} M parameters ({:.2f} M in matrix products)\n",
                  to_string(config.model.residual), config.model.routed() ? " " + to_string(config.model.source) : "",
                  config.model.num_hidden_layers, config.model.hidden_size, static_cast<double>(layout.count()) / 1e6,
                  static_cast<double>(matmul_parameters(config.model)) / 1e6);
  text += fmt::format("step         {} tokens: {} passes over {} sequences of {}\n", config.train.tokens_per_step,
                      config.sequences_per_step() / config.train.micro_batch, config.train.micro_batch,
                      config.data.sequence_length);
  text += memory_table(memory_parts(config));
  if (const std::size_t available = available_bytes(config.device); available > 0) {
    TrainConfig tried = config;
    text += fmt::format("fits         of {:.1f} GiB: train.micro_batch up to", gibibytes(available));
    for (const char* level : kRecomputeLevels) {
      tried.kernels.recompute = level;
      text += fmt::format("{} {} ({})", level == kRecomputeLevels[0] ? "" : ",", largest_micro_batch(tried, available),
                          level == kRecomputeLevels[0] ? "nothing recomputed" : level);
    }
    text += "\n";
  }
  if (config.device == "cuda" && !cuda_available()) {
    return text + "step time    unknown: no CUDA device answers here\n";
  }

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
