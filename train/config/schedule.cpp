#include "train/config/schedule.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

namespace routescope::train {

double learning_rate(const TrainConfig::Train& train, std::int64_t step) {
  const TrainConfig::Schedule& schedule = train.schedule;
  const double peak = train.optimizer.learning_rate;
  const double floor = schedule.final_fraction;
  if (step <= schedule.warmup_steps) {
    return peak * static_cast<double>(step) / static_cast<double>(schedule.warmup_steps);
  }
  if (schedule.kind == "cosine") {
    const double t =
        static_cast<double>(step - schedule.warmup_steps) / static_cast<double>(train.steps - schedule.warmup_steps);
    return peak * (floor + (1 - floor) * (1 + std::cos(std::numbers::pi * t)) / 2);
  }
  if (schedule.kind == "wsd") {
    const auto decay_steps = std::llround(schedule.decay_fraction * static_cast<double>(train.steps));
    const std::int64_t decayed = step - (train.steps - decay_steps);
    if (decayed > 0) return peak * (1 - (1 - floor) * static_cast<double>(decayed) / static_cast<double>(decay_steps));
  }
  return peak;
}

bool StepSchedule::contains(std::int64_t step) const {
  if (step < 0 || step > last) return false;
  if (step == 0 || step == last) return true;
  if (step <= log_spaced_until) return std::has_single_bit(static_cast<std::uint64_t>(step));
  return every > 0 && step % every == 0;
}

}  // namespace routescope::train
