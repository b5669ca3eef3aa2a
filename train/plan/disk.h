// What the checkpoints of a run take on disk.
#pragma once

#include <cstdint>

#include "train/config/config.h"

namespace routescope::train {

/// Numbers alone: without the headers of files, config.json and manifests, some kilobytes a checkpoint.
struct CheckpointBytes {
  std::int64_t checkpoints = 0, with_state = 0;  // at the end of the run
  std::int64_t weights = 0, state = 0;           // bytes of one, f32
  std::int64_t weights_alone = 0;                // bytes of one without state (checkpoint.weights_dtype)
  /// Before the last one is written and others are removed for it, there is one more.
  std::int64_t total() const { return with_state * (weights + state) + (checkpoints - with_state) * weights_alone; }
};
CheckpointBytes checkpoint_bytes(const TrainConfig& config);

}  // namespace routescope::train
