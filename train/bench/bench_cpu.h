// routescope-bench --device cpu.
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
