// The memory that a run needs, part by part, and the choices that follow from it: what is recomputed, and the largest
// micro-batch.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/memory.h"
#include "train/config/config.h"

namespace routescope::train {

/// What one of `ranks` ranks allocates on its device. This function itself allocates none of it.
std::vector<kernels::Arena::Part> memory_parts(const TrainConfig& config, std::int64_t ranks = 1);
/// What it needs in host memory besides: the copy that an asynchronous checkpoint is written from, the record's rows
/// (rank 0), and on CPUs the buffers for sums over ranks, MPI and the matrices that are timed at the start.
std::vector<kernels::Arena::Part> host_memory_parts(const TrainConfig& config, std::int64_t ranks = 1,
                                                    std::int64_t rank = 0);
std::size_t total_bytes(const std::vector<kernels::Arena::Part>& parts);
/// The parts as lines of name and MiB, with the total.
std::string memory_table(const std::vector<kernels::Arena::Part>& parts);

/// The largest train.micro_batch that divides a step, gives every rank a micro-batch, and needs at most `bytes` on a
/// rank; 0 if there is none. On the CPU host_memory_parts() and `besides` count as well.
std::int64_t largest_micro_batch(const TrainConfig& config, std::size_t bytes, std::int64_t ranks = 1,
                                 std::size_t besides = 0);

/// Bytes that a run may use here: a CUDA device's free memory without a reserve for its libraries, or nine tenths of
/// the machine's memory; 0 if no device answers.
std::size_t available_bytes(const std::string& device);
/// Part of a CUDA device's memory that is left to its libraries.
inline constexpr std::size_t device_reserve = std::size_t{1} << 30;

/// Levels of kernels.recompute, each recomputing more than the one before.
inline constexpr std::array<const char*, 4> recompute_levels{"none", "swiglu", "norms", "attention"};
/// Sets the first level with which memory_parts() fit into `bytes`. Sets the last one and returns false if none does.
bool least_recompute(TrainConfig& config, std::size_t bytes, std::int64_t ranks);

/// Replaces kernels.recompute: auto. If run.dir holds a run, by that run's level, so that it resumes to the same bits;
/// else by the first level that fits into the free memory of the CUDA device of one of `ranks` ranks (none on the CPU,
/// and if no device answers). Throws Error, with the largest micro-batch that fits, if the run does not fit a CUDA
/// device.
void resolve_recompute(TrainConfig& config, std::int64_t ranks = 1);

}  // namespace routescope::train
