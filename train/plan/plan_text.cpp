#include "train/plan/plan_text.h"

#include <algorithm>
#include <utility>

#include "data/base/error.h"
#include "kernels/device.h"
#include "model/pass/parameters.h"
#include "train/plan/basis.h"
#include "train/plan/disk.h"
#include "train/plan/duration.h"
#include "train/plan/forecast.h"
#include "train/plan/memory.h"
#include "train/plan/precision.h"
#include "train/plan/throughput.h"

namespace routescope::train {

namespace {

constexpr double kMatrixRateSeconds = 1.0;

double gibi(double bytes) {
  return bytes / (1 << 30);
}
double mebi(double bytes) {
  return bytes / (1 << 20);
}

/// What rank `rank` needs in the memory of its device; on CPUs the host memory is part of it.
std::vector<kernels::Arena::Part> rank_parts(const TrainConfig& config, const Basis& basis, std::int64_t ranks,
                                             std::int64_t rank) {
  std::vector<kernels::Arena::Part> parts = memory_parts(config, ranks);
  if (config.device == "cuda") return parts;
  for (kernels::Arena::Part& part : host_memory_parts(config, ranks, rank)) parts.push_back(std::move(part));
  parts.push_back({"program, libraries, their scratch", basis.process_bytes(config)});
  return parts;
}

std::string model_text(const TrainConfig& config, std::int64_t ranks) {
  const model::ParameterLayout layout(config.model);
  const std::int64_t passes = config.sequences_per_step() / config.train.micro_batch;
  std::string text = fmt::format(
      "model        {}{}, {} layers, hidden size {}, {:.2f} M parameters ({:.2f} M in matrix products)\n",
      model::to_string(config.model.residual), config.model.routed() ? " " + model::to_string(config.model.source) : "",
      config.model.num_hidden_layers, config.model.hidden_size, static_cast<double>(layout.count()) / 1e6,
      static_cast<double>(matmul_parameters(config.model)) / 1e6);
  text += fmt::format("step         {} tokens: {} passes over {} sequences of {}", config.train.tokens_per_step, passes,
                      config.train.micro_batch, config.data.sequence_length);
  if (ranks > 1) {
    const std::int64_t most = (passes + ranks - 1) / ranks, least = passes / ranks;
    text += fmt::format(", {} on each of {} ranks",
                        most == least ? fmt::format("{}", most) : fmt::format("{} or {}", least, most), ranks);
  }
  return text + "\n";
}

std::string ranks_text(const Cluster& cluster, std::int64_t ranks, bool connected) {
  const std::int64_t nodes = cluster.nodes(ranks);
  const std::string split = nodes == 1 ? "one node" : fmt::format("{} nodes", nodes);
  return fmt::format("ranks        {} on {}\n", ranks,
                     connected ? fmt::format("{} of {}", split, cluster.name) : cluster.name);
}

std::string memory_text(const TrainConfig& config, const Basis& basis, std::int64_t ranks) {
  std::string text = memory_table(rank_parts(config, basis, ranks, 0));
  if (ranks > 1) {
    text += fmt::format("  {:<34} {:>12.1f}\n", "total of every other rank",
                        mebi(static_cast<double>(total_bytes(rank_parts(config, basis, ranks, 1)))));
  }
  if (config.device == "cuda") {
    for (const kernels::Arena::Part& part : host_memory_parts(config, ranks, 0))
      text += fmt::format("  {:<34} {:>12.1f}\n", "host: " + part.name, mebi(static_cast<double>(part.bytes)));
  }
  const std::size_t available = basis.available(config, ranks);
  if (available == 0) return text;
  text += fmt::format("fits         of {:.1f} GiB: train.micro_batch up to", gibi(static_cast<double>(available)));
  TrainConfig tried = config;
  for (const char* level : recompute_levels) {
    tried.kernels.recompute = level;
    text += fmt::format("{} {} ({})", level == recompute_levels[0] ? "" : ",",
                        largest_micro_batch(tried, available, ranks, basis.process_bytes(config)),
                        level == recompute_levels[0] ? "nothing recomputed" : level);
  }
  return text + "\n";
}

std::string disk_text(const TrainConfig& config) {
  const CheckpointBytes disk = checkpoint_bytes(config);
  const auto bytes = [](std::int64_t value) { return fmt::format("{:.4g} GiB", gibi(static_cast<double>(value))); };
  const bool rounded = disk.with_state < disk.checkpoints && disk.weights_alone != disk.weights;
  return fmt::format("checkpoints  {} of {} weights, {} of them with {} of state{}: {} in all\n", disk.checkpoints,
                     bytes(disk.weights), disk.with_state, bytes(disk.state),
                     rounded ? fmt::format(", the others rounded to {}", bytes(disk.weights_alone)) : "",
                     bytes(disk.total()));
}

std::string wire_text(const TrainConfig& config, const StepForecast& f) {
  const auto line = [](const std::string& name, double bytes) {
    return fmt::format("  {:<34} {:>12.4f}\n", name, mebi(bytes));
  };
  const bool sharded = config.distributed.zero == 1, bf16 = config.precision == "bf16";
  std::string text = "sent by a rank in a step       MiB\n";
  text += line("gradients, reduce-scatter (f32)", f.reduce_scatter_bytes);
  text += line(!sharded ? "gradients, all-gather (f32)"
               : bf16   ? "parameters, all-gather (bf16)"
                        : "parameters, all-gather (f32)",
               f.all_gather_bytes);
  text += line("gradients of vectors (f32)", f.vector_bytes);
  text += line("host values", f.exchange_bytes);
  text += line("total", f.bytes());
  if (sharded && bf16) text += line("at a checkpoint: f32 masters", 2 * f.all_gather_bytes);
  return text;
}

std::string arithmetic_text(const TrainConfig& config, const Basis& basis) {
  const double flops = flops_per_token(config.model, config.data.sequence_length);
  const double step_flops = flops * static_cast<double>(config.train.tokens_per_step);
  std::string text = fmt::format("arithmetic   {:.4g} FLOP a token, {:.4g} FLOP a step\n", flops, step_flops);
  if (!basis.measured()) return text;
  const double rate = measure_matrix_rate(config.model_options(), kMatrixRateSeconds);
  return text + fmt::format("matrix rate  {:.0f} GFLOP/s ({}, {}, measured now): {:.3g} s a step\n", rate / 1e9,
                            config.device, config.precision, step_flops / rate);
}

std::string time_text(const StepForecast& f, bool connected) {
  std::string text = fmt::format("step time    {:.4g} s predicted\n", f.step());
  text += fmt::format("  {:<34} {:>12.4f}\n",
                      fmt::format("passes, {} of {:.4g} s", f.passes, f.compute / static_cast<double>(f.passes)),
                      f.compute);
  text += fmt::format("  {:<34} {:>12.4f}\n", "gradients cleared, update", f.update);
  if (f.ranks == 1) return text;
  if (!connected) return text + "  between ranks: not known without --cluster FILE\n";
  const auto line = [](const std::string& name, double exposed, double all) {
    return fmt::format("  {:<34} {:>12.4f}  of {:.4f}\n", name, exposed, all);
  };
  text += line("reduce-scatter, not hidden", f.reduce_scatter_exposed, f.reduce_scatter);
  text += line("all-gather, not hidden", f.all_gather_exposed, f.all_gather);
  text += line("vectors and host values", f.vectors + f.exchange, f.vectors + f.exchange);
  return text;
}

/// A row of the table of world sizes.
struct Row {
  StepForecast forecast;
  double slowdown = 1;
  std::size_t bytes = 0;
  bool fits = true;
};

Row row_of(const TrainConfig& config, const Basis& basis, std::int64_t ranks, bool choose) {
  TrainConfig chosen = config;
  const std::size_t available = basis.available(config, ranks);
  if (choose && config.device == "cuda" && available > 0) least_recompute(chosen, available, ranks);
  Row row{.forecast = forecast_step(chosen, basis.times(chosen, ranks), basis.cluster(config, ranks), ranks),
          .slowdown = basis.slowdown(ranks),
          .bytes = total_bytes(rank_parts(chosen, basis, ranks, 0))};
  row.fits = available == 0 || row.bytes <= available;
  return row;
}

std::string scaling_text(const TrainConfig& config, const Basis& basis, std::int64_t world_size, bool choose) {
  std::string text = fmt::format("{:>6} {:>6} {:>7} {:>10} {:>10} {:>11} {:>11} {:>11} {:>11}\n", "ranks", "nodes",
                                 "passes", "GiB/rank", "MiB sent", "exposed s", "step s", "tokens/s", "efficiency");
  double alone = 0;  // seconds of a step on one rank that has all cores of the measurement
  std::vector<std::int64_t> counts;
  for (std::int64_t ranks = 1; ranks < world_size; ranks *= 2) counts.push_back(ranks);
  counts.push_back(world_size);
  for (const std::int64_t ranks : counts) {
    const Row row = row_of(config, basis, ranks, choose);
    const StepForecast& f = row.forecast;
    if (ranks == 1) alone = f.step() / row.slowdown;
    text += fmt::format("{:>6} {:>6} {:>7} {:>10.2f} {:>10.1f} {:>11.4g} {:>11.4g} {:>11.4g} {:>10.1f}%{}\n", ranks,
                        f.nodes, f.passes, gibi(static_cast<double>(row.bytes)), mebi(f.bytes()), f.exposed(), f.step(),
                        static_cast<double>(config.train.tokens_per_step) / f.step(),
                        100 * alone * row.slowdown / (static_cast<double>(ranks) * f.step()),
                        row.fits ? "" : "  does not fit");
  }
  const std::int64_t sequences = config.sequences_per_step(), passes = sequences / config.train.micro_batch;
  return text +
         fmt::format("at most      {} ranks, a micro-batch each{}\n", passes,
                     config.train.micro_batch > 1 ? fmt::format("; {} with train.micro_batch=1", sequences) : "");
}

void check_world_size(const TrainConfig& config, std::int64_t world_size) {
  const std::int64_t passes = config.sequences_per_step() / config.train.micro_batch;
  if (world_size >= 1 && world_size <= passes) return;
  throw data::UsageError(
      "--world-size: found {}, expected 1 to {}: a step of {} sequences (train.tokens_per_step) in micro-batches of {} "
      "(train.micro_batch) has no micro-batch for more ranks",
      world_size, passes, config.sequences_per_step(), config.train.micro_batch);
}

/// Resolves the configuration; with a described cluster, for the cluster's device.
void resolve(TrainConfig& config, const std::optional<Cluster>& cluster, const std::string& file) {
  if (cluster) {
    if (config.device == "auto") config.device = cluster->device;
    if (config.device != cluster->device)
      throw data::Error("{}: device: found {}, expected {} as in the configuration", file, cluster->device,
                        config.device);
    if (config.device == "cuda" && !kernels::cuda_built()) {
      throw data::Error(
          "{}: device: found cuda, expected cpu: this build has no CUDA backend, and only it can tell what its kernels "
          "need (build with the CUDA toolkit; a card is not necessary)",
          file);
    }
    // `auto` means the precision of the cluster, not of this machine. Of a described CPU it is not known.
    if (config.precision == "auto") config.precision = config.device == "cuda" ? "bf16" : "f32";
  }
  resolve_backend(config, true);
  resolve_precision(config);
}

}  // namespace

std::string plan_text(TrainConfig config, const PlanOptions& options) {
  const std::int64_t ranks = options.world_size;
  check_world_size(config, ranks);
  std::optional<Cluster> described;
  if (options.cluster) described = load_cluster(*options.cluster);
  resolve(config, described, options.cluster ? options.cluster->string() : "");
  const bool choose = described && config.kernels.recompute == "auto";
  if (choose) config.kernels.recompute = "none";
  if (!described) resolve_recompute(config, ranks);

  const Basis basis(config, ranks, options.seconds, described);
  if (const std::size_t available = basis.available(config, ranks); choose && config.device == "cuda" && available > 0)
    least_recompute(config, available, ranks);
  const Cluster cluster = basis.cluster(config, ranks);
  const bool connected = basis.connected(config);
  const StepForecast forecast = forecast_step(config, basis.times(config, ranks), cluster, ranks);

  std::string text = model_text(config, ranks);
  if (ranks > 1 || described) text += ranks_text(cluster, ranks, connected);
  if (config.device == "cuda") text += fmt::format("recompute    {}\n", config.kernels.recompute);
  text += memory_text(config, basis, ranks);
  text += disk_text(config);
  if (ranks > 1) text += wire_text(config, forecast);
  if (!basis.timed(config))
    return text + "step time    unknown: no CUDA device answers here, and no --cluster FILE describes one\n";
  text += arithmetic_text(config, basis) + time_text(forecast, connected);
  const auto steps = static_cast<double>(config.train.steps);
  text +=
      fmt::format("run          {} steps, {:.4g} tokens: {}\n", config.train.steps,
                  steps * static_cast<double>(config.train.tokens_per_step), format_duration(steps * forecast.step()));
  if (ranks > 1 && connected) text += scaling_text(config, basis, ranks, choose);
  return text;
}

}  // namespace routescope::train
