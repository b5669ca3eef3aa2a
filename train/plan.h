// What a run would take, without running it: memory by part, arithmetic, time.
#pragma once

#include <string>

#include "train/config.h"

namespace routescope {

/// The table that `routescope-train --plan` prints, for one process. `config` must be resolved.
std::string plan_text(const TrainConfig& config);

}  // namespace routescope
