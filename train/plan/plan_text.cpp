// What `routescope-train --plan` prints.
#include <omp.h>

#include <algorithm>
#include <utility>

#include "data/base/error.h"
#include "kernels/device.h"
#include "model/pass/parameters.h"
#include "train/plan/calibrate.h"
#include "train/plan/cluster.h"
#include "train/plan/forecast.h"
#include "train/plan/plan.h"
#include "train/plan/throughput.h"
#include "train/run/progress.h"

namespace routescope::train {

namespace {

constexpr double kMatrixRateSeconds = 1.0;
// Between looks the MPI communicator's thread sleeps about so long while a core computes.
constexpr double kLocalLatencySeconds = 1e-4;
constexpr std::size_t kDeviceReserve = std::size_t{1} << 30;  // as in available_bytes()

double gibi(double bytes) {
  return bytes / (1 << 30);
}
double mebi(double bytes) {
  return bytes / (1 << 20);
}

/// Where a plan's times come from: a description, or measurements made here.
class Basis {
 public:
  Basis(const TrainConfig& config, const PlanOptions& options, const std::optional<Cluster>& described)
      : described_(described) {
    if (described) {
      process_bytes_ = config.device == "cpu" ? resident_bytes() : 0;
      return;
    }
    threads_ = omp_get_max_threads();
    processors_ = omp_get_num_procs();
    if (!timed(config)) return;
    // All ranks compute at the same time, on as many cores as they have together: so are the passes timed.
    timed_threads_ = static_cast<int>(
        std::clamp<std::int64_t>(threads_ * options.world_size, threads_, std::max(threads_, processors_)));
    omp_set_num_threads(timed_threads_);
    calibration_ = calibrate(config, options.seconds);
    omp_set_num_threads(threads_);
    process_bytes_ = calibration_.process_bytes;
  }

  /// Whether anything is known about time.
  bool timed(const TrainConfig& config) const {
    return described_ || config.device == "cpu" || kernels::cuda_available();
  }
  /// Whether anything is known about what is between ranks.
  bool connected(const TrainConfig& config) const { return described_ || config.device == "cpu"; }
  bool measured() const { return !described_; }

  /// How much longer a rank of so many takes for the same work than one that has all cores of the measurement: ranks
  /// share this machine's.
  double slowdown(std::int64_t ranks) const {
    if (described_ || timed_threads_ == 0) return 1;
    const double cores =
        std::min(static_cast<double>(threads_), static_cast<double>(processors_) / static_cast<double>(ranks));
    return std::max(1.0, static_cast<double>(timed_threads_) / cores);
  }

  ComputeTimes times(const TrainConfig& config, std::int64_t ranks) const {
    if (described_) return described_times(config, *described_);
    ComputeTimes times = calibration_.times;
    const double slow = config.device == "cpu" ? slowdown(ranks) : 1;
    for (double* t : {&times.layer_forward, &times.layer_backward, &times.head, &times.clear, &times.update})
      *t *= slow;
    return times;
  }

  Cluster cluster(const TrainConfig& config, std::int64_t ranks) const {
    if (described_) return *described_;
    if (!connected(config)) return unknown_cluster(ranks);
    // Ranks of one machine pass bytes through memory that both sides copy, all of them at the same time.
    const double rate = calibration_.copy_rate / static_cast<double>(ranks);
    const Link memory{.latency_seconds = kLocalLatencySeconds, .bytes_per_second = rate / 2};
    return {.name = fmt::format("this machine, {} cores for all ranks", processors_),
            .device = "cpu",
            .devices_per_node = ranks,
            .memory_bytes_per_second = 2 * rate,
            .intra_node = memory,
            .inter_node = memory};
  }

  /// Bytes that a rank of so many may take; 0: not known.
  std::size_t available(const TrainConfig& config, std::int64_t ranks) const {
    if (!described_)
      return available_bytes(config.device) / static_cast<std::size_t>(config.device == "cpu" ? ranks : 1);
    const auto present = static_cast<std::size_t>(described_->memory_bytes);
    return config.device == "cuda" ? present - std::min(present, kDeviceReserve) : present / 10 * 9;
  }
  /// What the program itself takes, on the CPU.
  std::size_t process_bytes(const TrainConfig& config) const { return config.device == "cpu" ? process_bytes_ : 0; }

 private:
  const std::optional<Cluster>& described_;
  Calibration calibration_;
  std::size_t process_bytes_ = 0;
  int threads_ = 1, processors_ = 1, timed_threads_ = 0;
};

/// All that rank `rank` takes of the memory that its device computes in.
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

/// A row of the table of steps on 1, 2, 4, ... ranks.
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
  double alone = 0;  // seconds of a step on one rank, as fast as the ranks of the row
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
      "(train.micro_batch) gives no more ranks one",
      world_size, passes, config.sequences_per_step(), config.train.micro_batch);
}

/// The run's device is the cluster's.
void resolve(TrainConfig& config, const std::optional<Cluster>& cluster, const std::string& file) {
  if (cluster) {
    if (config.device == "auto") config.device = cluster->device;
    if (config.device != cluster->device)
      throw data::Error("{}: device: found {}, expected {} as in the configuration", file, cluster->device,
                        config.device);
    if (config.device == "cuda" && !kernels::cuda_built()) {
      throw data::Error(
          "{}: device: found cuda, expected cpu: this build has no CUDA backend, which knows what its kernels need (a "
          "build with the CUDA toolkit plans without a card)",
          file);
    }
    // The precision that auto has there, not here.
    if (config.precision == "auto" && config.device == "cuda") config.precision = "bf16";
  }
  resolve_backend(config, true);
}

}  // namespace

std::string plan_text(TrainConfig config, const PlanOptions& options) {
  check_world_size(config, options.world_size);
  std::optional<Cluster> cluster;
  if (options.cluster) cluster = load_cluster(*options.cluster);
  resolve(config, cluster, options.cluster ? options.cluster->string() : "");
  const bool choose = cluster && config.kernels.recompute == "auto";
  if (choose) config.kernels.recompute = "none";
  if (!cluster) resolve_recompute(config, options.world_size);

  const Basis basis(config, options, cluster);
  const std::int64_t ranks = options.world_size;
  if (const std::size_t available = basis.available(config, ranks); choose && config.device == "cuda" && available > 0)
    least_recompute(config, available, ranks);
  std::string text = model_text(config, ranks);
  const Cluster machines = basis.cluster(config, ranks);
  const bool connected = basis.connected(config);
  if (ranks > 1 || cluster) {
    const std::int64_t nodes = machines.nodes(ranks);
    const std::string split = nodes == 1 ? "one node" : fmt::format("{} nodes", nodes);
    text += fmt::format("ranks        {} on {}\n", ranks,
                        connected ? fmt::format("{} of {}", split, machines.name) : machines.name);
  }
  if (config.device == "cuda") text += fmt::format("recompute    {}\n", config.kernels.recompute);
  text += memory_text(config, basis, ranks);
  const StepForecast forecast = forecast_step(config, basis.times(config, ranks), machines, ranks);
  if (ranks > 1) text += wire_text(config, forecast);
  if (!basis.timed(config))
    return text + "step time    unknown: no CUDA device answers here, and no --cluster FILE describes one\n";

  const double flops = flops_per_token(config.model, config.data.sequence_length);
  const auto tokens = static_cast<double>(config.train.tokens_per_step),
             steps = static_cast<double>(config.train.steps);
  text += fmt::format("arithmetic   {:.4g} FLOP a token, {:.4g} FLOP a step\n", flops, flops * tokens);
  if (basis.measured()) {
    const double rate = measure_matrix_rate(config.model_options(), kMatrixRateSeconds);
    text += fmt::format("matrix rate  {:.0f} GFLOP/s ({}, {}, measured now): {:.3g} s a step\n", rate / 1e9,
                        config.device, config.precision, flops * tokens / rate);
  }
  text += time_text(forecast, connected);
  text += fmt::format("run          {} steps, {:.4g} tokens: {}\n", config.train.steps, steps * tokens,
                      format_duration(steps * forecast.step()));
  if (ranks > 1 && connected) text += scaling_text(config, basis, ranks, choose);
  return text;
}

}  // namespace routescope::train
