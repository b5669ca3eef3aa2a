// routescope-bench --checkpoint DIR: what a checkpoint takes from training, written at once and beside it.
#pragma once

#include <filesystem>

#include "kernels/comm/communicator.h"
#include "train/bench/bench_cpu.h"

namespace routescope::train {

/// Collective; rank 0 prints. Checkpoints go to DIR, which must not exist, and are removed with it. Throws Error.
void bench_checkpoint(const CpuBench& arguments, const std::filesystem::path& dir, kernels::Communicator& communicator);

}  // namespace routescope::train
