// What a run would take, without running it: memory by part, arithmetic, time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/memory.h"
#include "train/config.h"

namespace routescope {

/// What a run of `config` allocates, by part. Nothing is allocated for it.
std::vector<Arena::Part> memory_parts(const TrainConfig& config);
std::size_t total_bytes(const std::vector<Arena::Part>& parts);
/// The parts as lines of name and MiB, with the total.
std::string memory_table(const std::vector<Arena::Part>& parts);

/// The largest train.micro_batch that fits into so many bytes and divides a step; 0 if none does.
std::int64_t largest_micro_batch(const TrainConfig& config, std::size_t bytes);

/// Turns kernels.recompute: auto into the level of the run that run.dir holds, so that it resumes to the same bits, or
/// else into the least recomputation that fits the device's free memory (on the CPU, and where no device answers:
/// none). Throws Error, with the largest micro-batch that fits, where the run does not fit a CUDA device.
void resolve_recompute(TrainConfig& config);

/// The table that `routescope-train --plan` prints, for one process. `config` must be resolved.
std::string plan_text(const TrainConfig& config);

}  // namespace routescope
