// The operations that a step's time goes to: each operation of the model is called alone, on the model's shapes, and
// its time is multiplied by the number of calls in a step.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/pass/model.h"

namespace routescope::train {

struct OperationTime {
  std::string group;
  double seconds = 0;  // in one step
};

/// Groups in the order of the step; matrix products first. One pass over batch x seq_len tokens, then the optimizer.
std::vector<OperationTime> time_operations(const model::Model& model, std::int64_t batch, std::int64_t seq_len,
                                           std::int64_t head_rows);

}  // namespace routescope::train
