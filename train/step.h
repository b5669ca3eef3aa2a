// One training step, as the algorithm is written: accumulate gradients over micro-batches, clip, update.
#pragma once

#include <cstdint>
#include <functional>

#include "data/batches.h"
#include "model/model.h"
#include "train/optimizer.h"

namespace routescope {

struct StepResult {
  double loss = 0;       // mean nll of the step's tokens before the update, nats a token
  double grad_norm = 0;  // before clipping
};

/// Update number `step` (1, 2, ...; it trains on batches.get(step - 1, ...)). `gradients` is scratch, laid out like the
/// parameters. `meanwhile` runs once, while a CUDA device computes. Throws Error, before anything is changed, if the
/// loss or the gradient is not finite.
StepResult train_step(Model& model, AdamW& optimizer, Tensor gradients, Pass& pass, const Batches& batches,
                      std::int64_t step, double learning_rate, double grad_clip,
                      const std::function<void()>& meanwhile = nullptr);

}  // namespace routescope
