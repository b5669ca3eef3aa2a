// routescope-bench --checkpoint DIR: what a checkpoint takes from training, written at once and beside it.
#pragma once

#include <filesystem>

#include "kernels/communicator.h"
#include "train/bench_cpu.h"

namespace routescope {

/// Collective; rank 0 prints. Checkpoints go to DIR, which must not exist, and are removed with it. Throws Error.
void bench_checkpoint(const CpuBench& arguments, const std::filesystem::path& dir, Communicator& communicator);

}  // namespace routescope
