// Whole training steps on a CUDA device: a routed model against the standard one, in turn.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "model/pass/model.h"
#include "model/pass/pass.h"

namespace routescope::train {

struct StepBench {
  model::ModelConfig model;  // the routed one; the standard one is the same with residual: standard
  model::ModelOptions options;
  model::PassOptions pass;  // of both; `reads` matters for the routed one only, `recompute` is the lowest level
  std::int64_t batch = 16, sequence_length = 2048;
  std::int64_t accumulate = 16;  // passes in a step
  std::int64_t rounds = 3;
};

struct StepSpeed {
  double seconds = 0;            // of a step, median over the rounds
  double tokens_per_second = 0;  // at that time
  std::size_t bytes = 0;         // planned: training_bytes()
  std::size_t device_bytes = 0;  // decrease of the device's free memory
};

struct StepComparison {
  StepSpeed standard, routed;
  double routed_over_standard = 0;  // time, median over the rounds of the ratio within a round
  model::Recompute recompute = model::Recompute::none;
  std::string error;  // why it could not be measured
};

/// Puts both models on the device, with the least recomputation at which they fit, and steps them in turn on random
/// tokens. The order changes from round to round.
StepComparison compare_steps(const StepBench& bench);

}  // namespace routescope::train
