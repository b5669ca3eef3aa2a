#include "train/plan/disk.h"

#include <algorithm>

#include "model/pass/parameters.h"
#include "train/config/schedule.h"
#include "train/optimizer/update_rule.h"

namespace routescope::train {

CheckpointBytes checkpoint_bytes(const TrainConfig& config) {
  const StepSchedule schedule{config.checkpoint.every, config.checkpoint.log_spaced_until, config.train.steps};
  CheckpointBytes out;
  for (std::int64_t step = 0; step <= config.train.steps; ++step) out.checkpoints += schedule.contains(step) ? 1 : 0;
  if (config.checkpoint.keep > 0) out.checkpoints = std::min(out.checkpoints, config.checkpoint.keep);
  out.with_state = out.checkpoints;
  if (config.checkpoint.keep_state > 0) out.with_state = std::min(out.checkpoints, config.checkpoint.keep_state);
  constexpr std::int64_t size = sizeof(float);
  out.weights = size * model::ParameterLayout(config.model).count();
  out.state = std::ssize(make_update_rule(config.train.optimizer)->slots()) * out.weights;
  out.weights_alone = config.checkpoint.weights_dtype == "bf16" ? out.weights / 2 : out.weights;
  return out;
}

}  // namespace routescope::train
