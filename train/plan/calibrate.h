// Timing this machine on the shapes of a configuration, for a plan without a cluster's description.
#pragma once

#include <cstddef>
#include <cstdint>

#include "train/config/config.h"
#include "train/plan/forecast.h"

namespace routescope::train {

struct Calibration {
  ComputeTimes times;             // of one process that has the device, or the cores of its threads, to itself
  double copy_rate = 0;           // bytes a second that all threads together copy in memory (CPU; 0 for CUDA)
  std::size_t process_bytes = 0;  // resident memory without tensors: the program, its libraries, and the scratch and
                                  // code that they made for these shapes
};

/// How the head is timed: passes of one layer with `few` and with `many` ids in the vocabulary. The head's time does
/// not depend on the sequence length: short sequences leave little else in the measurement.
struct HeadTrial {
  std::int64_t few = 0, many = 0, sequences = 0, length = 0;
};
HeadTrial head_trial(const TrainConfig& config);
/// Seconds of the head in a micro-batch of the configuration: its time is proportional to ids and to tokens.
/// `difference`: seconds that a pass with `many` ids takes more than one with `few`.
double head_seconds(const TrainConfig& config, const HeadTrial& trial, double difference);

/// Resident memory of this process, after its allocator returned what it could to the system.
std::size_t resident_bytes();

/// Times passes of models of one and two layers with the configuration's widths, and updates of some million
/// parameters, for about `seconds` (longer if a single pass takes longer). Scales the times to the configuration's
/// layers, vocabulary and micro-batch. `config` must be resolved.
Calibration calibrate(const TrainConfig& config, double seconds);

}  // namespace routescope::train
