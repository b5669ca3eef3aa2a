// What a run would take, without running it: memory by part, bytes between ranks, arithmetic, time; and the choice of
// what a run recomputes, which follows from the first.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "kernels/memory.h"
#include "train/config/config.h"

namespace routescope::train {

/// What one of `ranks` ranks of a run of `config` allocates on its device, by part. Nothing is allocated for it.
std::vector<kernels::Arena::Part> memory_parts(const TrainConfig& config, std::int64_t ranks = 1);
/// What it takes of host memory besides: the copy that an asynchronous checkpoint writes from, the record's rows
/// (rank 0), tokens, and what sums over CPU ranks go through.
std::vector<kernels::Arena::Part> host_memory_parts(const TrainConfig& config, std::int64_t ranks = 1,
                                                    std::int64_t rank = 0);
std::size_t total_bytes(const std::vector<kernels::Arena::Part>& parts);
/// The parts as lines of name and MiB, with the total.
std::string memory_table(const std::vector<kernels::Arena::Part>& parts);

/// The largest train.micro_batch that fits into so many bytes of a rank and divides a step so that every rank has one;
/// 0 if none does. On the CPU host_memory_parts() count too, and `besides`.
std::int64_t largest_micro_batch(const TrainConfig& config, std::size_t bytes, std::int64_t ranks = 1,
                                 std::size_t besides = 0);

/// What a run may take here: a CUDA device's free memory less what its libraries take, or nine tenths of the machine's;
/// 0 where no device answers.
std::size_t available_bytes(const std::string& device);

/// Levels of kernels.recompute, from the least on.
inline constexpr std::array<const char*, 4> recompute_levels{"none", "swiglu", "norms", "attention"};
/// Sets the least of them with which a rank's memory_parts() fit; the last one and false where none does.
bool least_recompute(TrainConfig& config, std::size_t bytes, std::int64_t ranks);

/// Turns kernels.recompute: auto into the level of the run that run.dir holds, so that it resumes to the same bits, or
/// else into the least recomputation that fits the device's free memory (on the CPU, and where no device answers:
/// none), one of `ranks`. Throws Error, with the largest micro-batch that fits, where it does not fit a CUDA device.
void resolve_recompute(TrainConfig& config, std::int64_t ranks = 1);

struct PlanOptions {
  std::int64_t world_size = 1;                   // ranks
  std::optional<std::filesystem::path> cluster;  // a description (cluster.h); without: this machine, measured now
  double seconds = 8;                            // that the measurement takes, about
};

/// What `routescope-train --plan` prints. Resolves `config` itself, with a cluster for the cluster's device. Throws
/// UsageError for more ranks than a step has micro-batches.
std::string plan_text(TrainConfig config, const PlanOptions& options = {});

}  // namespace routescope::train
