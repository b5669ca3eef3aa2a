// AdamW over the flat parameter array: gains, biases and routing queries are not decayed, matrices and the embedding
// are.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/communicator.h"
#include "kernels/memory.h"
#include "kernels/stream.h"
#include "model/model.h"
#include "train/config.h"

namespace routescope {

/// A stretch of the flat arrays whose optimizer state this rank holds.
struct OptimizerRange {
  std::int64_t begin = 0, end = 0;  // elements of the flat arrays (model/parameters.h)
  Tensor exp_avg, exp_avg_sq;       // [end - begin], of the storage type
  Tensor parameters;                // [end - begin]: the master weights
  bool written = true;              // by this rank into checkpoints; every element is by exactly one
};

class AdamW {
 public:
  /// Moments of zero for every parameter of `model` that falls to this rank.
  AdamW(Model& model, const TrainConfig::Optimizer& settings, Communicator& communicator,
        const TrainConfig::Distributed& distributed);

  /// Euclidean norm of all gradients; the update() that follows multiplies them by min(1, max_norm / norm) (0: by one).
  double clip(Tensor gradients, double max_norm, const Stream& stream);
  /// Update number `step` (1, 2, ...).
  void update(Tensor parameters, Tensor gradients, double learning_rate, std::int64_t step, const Stream& stream);

  /// What this rank holds, in the order of the flat arrays.
  const std::vector<OptimizerRange>& ranges() const { return ranges_; }

 private:
  /// Neighbouring parameters with the same decay: one kernel call. Padding between them is zero and stays so.
  struct Run {
    std::int64_t begin = 0, end = 0;
    bool decay = false;
  };
  TrainConfig::Optimizer settings_;
  std::vector<Run> runs_;
  OwnedTensor exp_avg_, exp_avg_sq_;
  std::vector<OptimizerRange> ranges_;
  OwnedTensor norm_, scale_;  // [1]
};

}  // namespace routescope
