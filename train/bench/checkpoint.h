// routescope-bench --checkpoint DIR: the time that training loses to a checkpoint, written at once or beside training.
// A round is the same number of steps without a checkpoint, after a checkpoint written at once, and beside one written
// by the thread, so that a slow phase of the machine affects all three. The results are medians over rounds.
#pragma once

#include <filesystem>

#include "kernels/comm/communicator.h"
#include "train/bench/cpu.h"

namespace routescope::train {

/// Collective; rank 0 prints. Checkpoints go to DIR, which must not exist, and are removed with it. Throws Error.
void bench_checkpoint(const CpuBench& arguments, const std::filesystem::path& dir, kernels::Communicator& communicator);

}  // namespace routescope::train
