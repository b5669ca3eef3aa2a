// AdamW over the flat parameter array: gains, biases and routing queries are not decayed, matrices and the embedding
// are.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/memory.h"
#include "kernels/stream.h"
#include "model/model.h"
#include "train/config.h"

namespace routescope {

class AdamW {
 public:
  /// Moments of zero for every parameter of `model`.
  AdamW(const Model& model, const TrainConfig::Optimizer& settings);

  /// Euclidean norm of all gradients; the update() that follows multiplies them by min(1, max_norm / norm) (0: by one).
  double clip(Tensor gradients, double max_norm, const Stream& stream);
  /// Update number `step` (1, 2, ...).
  void update(Tensor parameters, Tensor gradients, double learning_rate, std::int64_t step, const Stream& stream);

  /// The moments, laid out like the parameters.
  Tensor exp_avg() const { return exp_avg_.tensor; }
  Tensor exp_avg_sq() const { return exp_avg_sq_.tensor; }

 private:
  /// Neighbouring parameters with the same decay: one kernel call. Padding between them is zero and stays so.
  struct Run {
    std::int64_t begin = 0, end = 0;
    bool decay = false;
  };
  TrainConfig::Optimizer settings_;
  std::vector<Run> runs_;
  OwnedTensor exp_avg_, exp_avg_sq_;
  OwnedTensor norm_, scale_;  // [1]
};

}  // namespace routescope
