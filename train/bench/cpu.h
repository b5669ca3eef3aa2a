// routescope-bench --device cpu: the speed of a training step as a share of oneDNN's own matrix rate on the same
// shapes, the cost of AttnRes over a standard model, memory, and the operations that take the time. Everything is
// measured in one run, in rounds of (oneDNN, standard, AttnRes), so that a slow phase of the machine affects all three;
// the results are medians over the rounds.
#pragma once

#include <cstdint>
#include <string>

#include "model/files/config.h"

namespace routescope::train {

struct CpuBench {
  model::ModelConfig model;  // the routed one; the standard one is the same with residual: standard
  std::int64_t sequence_length = 512, batch = 8, rounds = 3;
  std::string precision = "both";  // f32 | bf16 | both
};

/// Measures and prints a table.
void bench_cpu(const CpuBench& arguments);

}  // namespace routescope::train
