// Functions of the step alone: the learning rate, and the steps at which something is written.
#pragma once

#include <cstdint>

#include "train/config/config.h"

namespace routescope::train {

/// The learning rate of update `step` (1 .. steps). Linear warm-up from 0 reaches the peak at update warmup_steps; then
///   cosine:    peak * (f + (1-f) (1 + cos(pi t)) / 2),  t = (step - warmup) / (steps - warmup)
///   wsd:       the peak, then over the last round(decay_fraction * steps) updates linearly down
///   constant:  the peak
/// with f = final_fraction, reached exactly at the last update (cosine, wsd).
double learning_rate(const TrainConfig::Train& train, std::int64_t step);

/// Log-spaced early and even later: 0, 1, 2, 4, ... up to log_spaced_until, then the multiples of `every` beyond it
/// (0: none), and always the last step.
struct StepSchedule {
  std::int64_t every = 0;
  std::int64_t log_spaced_until = 0;
  std::int64_t last = 0;

  bool contains(std::int64_t step) const;
};

}  // namespace routescope::train
