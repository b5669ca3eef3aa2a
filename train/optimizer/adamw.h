// AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019), with g = scale * gradient, at step s:
//   exp_avg    = beta1 exp_avg    + (1 - beta1) g
//   exp_avg_sq = beta2 exp_avg_sq + (1 - beta2) g^2
//   p -= learning_rate (exp_avg / (1 - beta1^s) / (sqrt(exp_avg_sq / (1 - beta2^s)) + eps) + weight_decay p)
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "kernels/ops.h"
#include "train/optimizer/update_rule.h"

namespace routescope::train {

class AdamW final : public UpdateRule {
 public:
  explicit AdamW(OptimizerSettings settings) : settings_(std::move(settings)) {}

  std::vector<std::string> slots() const override { return {"exp_avg", "exp_avg_sq"}; }

  void update(const UpdatedElements& elements, const UpdateSpec& spec, const kernels::Stream& stream) const override {
    kernels::adamw(elements.parameters, elements.state[0], elements.state[1], elements.gradients, spec.scale,
                   {.learning_rate = spec.learning_rate,
                    .beta1 = settings_.beta1,
                    .beta2 = settings_.beta2,
                    .eps = settings_.eps,
                    .weight_decay = elements.decayed ? settings_.weight_decay : 0.0,
                    .step = spec.step},
                   stream);
  }

 private:
  OptimizerSettings settings_;
};

}  // namespace routescope::train
