#include "train/plan/basis.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>

#include "kernels/device.h"
#include "train/plan/memory.h"

namespace routescope::train {

namespace {

// Latency between ranks of one machine: how long the MPI communicator's thread sleeps between two polls.
constexpr double kLocalLatencySeconds = 1e-4;

}  // namespace

Basis::Basis(const TrainConfig& config, std::int64_t world_size, double seconds,
             const std::optional<Cluster>& described)
    : described_(described) {
  if (described) {
    process_bytes_ = config.device == "cpu" ? resident_bytes() : 0;
    return;
  }
  threads_ = omp_get_max_threads();
  processors_ = omp_get_num_procs();
  if (!timed(config)) return;
  // All ranks compute at the same time, so the measurement uses as many cores as they use together.
  timed_threads_ =
      static_cast<int>(std::clamp<std::int64_t>(threads_ * world_size, threads_, std::max(threads_, processors_)));
  omp_set_num_threads(timed_threads_);
  calibration_ = calibrate(config, seconds);
  omp_set_num_threads(threads_);
  process_bytes_ = calibration_.process_bytes;
}

bool Basis::timed(const TrainConfig& config) const {
  return described_ || config.device == "cpu" || kernels::cuda_available();
}

double Basis::slowdown(std::int64_t ranks) const {
  if (described_ || timed_threads_ == 0) return 1;
  const double cores =
      std::min(static_cast<double>(threads_), static_cast<double>(processors_) / static_cast<double>(ranks));
  return std::max(1.0, static_cast<double>(timed_threads_) / cores);
}

ComputeTimes Basis::times(const TrainConfig& config, std::int64_t ranks) const {
  if (described_) return described_times(config, *described_);
  ComputeTimes times = calibration_.times;
  const double slow = config.device == "cpu" ? slowdown(ranks) : 1;
  for (double* t : {&times.layer_forward, &times.layer_backward, &times.head, &times.clear, &times.update}) *t *= slow;
  return times;
}

Cluster Basis::cluster(const TrainConfig& config, std::int64_t ranks) const {
  if (described_) return *described_;
  if (!connected(config)) return unknown_cluster(ranks);
  // Ranks of one machine exchange bytes through memory. Both sides copy them, and all ranks do so at the same time.
  const double rate = calibration_.copy_rate / static_cast<double>(ranks);
  const Link memory{.latency_seconds = kLocalLatencySeconds, .bytes_per_second = rate / 2};
  return {.name = fmt::format("this machine, {} cores for all ranks", processors_),
          .device = "cpu",
          .devices_per_node = ranks,
          .memory_bytes_per_second = 2 * rate,
          .intra_node = memory,
          .inter_node = memory};
}

std::size_t Basis::available(const TrainConfig& config, std::int64_t ranks) const {
  if (!described_) return available_bytes(config.device) / static_cast<std::size_t>(config.device == "cpu" ? ranks : 1);
  const auto present = static_cast<std::size_t>(described_->memory_bytes);
  return config.device == "cuda" ? present - std::min(present, device_reserve) : present / 10 * 9;
}

}  // namespace routescope::train
