// What this machine reaches on a configuration's own shapes, timed now: the basis of a plan for here.
#pragma once

#include <cstddef>

#include "train/config/config.h"
#include "train/plan/forecast.h"

namespace routescope::train {

struct Calibration {
  ComputeTimes times;             // of a process that has the device, or all of the process's threads, to itself
  double copy_rate = 0;           // bytes a second that all threads together copy in memory (CPU; 0 for CUDA)
  std::size_t process_bytes = 0;  // resident: the program, its libraries and the scratch and code they made for
                                  // these shapes; no tensor
};

/// Resident memory of this process, less what it has given back.
std::size_t resident_bytes();

/// Times forward and backward passes of models of one and two layers with the configuration's widths, and updates of
/// some million parameters, for about `seconds` (longer where a single pass takes longer), and scales them to its
/// layers, vocabulary and micro-batch. `config` must be resolved.
Calibration calibrate(const TrainConfig& config, double seconds);

}  // namespace routescope::train
