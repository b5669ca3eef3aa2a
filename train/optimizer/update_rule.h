// An update rule: how one step changes parameters, given their gradients. It treats every element alike and knows
// nothing of ranks, buckets or files. A second rule is a header like adamw.h and a line in update_rule.cpp, and for
// every backend an operation that computes it (kernels/op_declarations.inc).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/stream.h"
#include "kernels/tensor.h"
#include "train/optimizer/settings.h"

namespace routescope::train {

/// Neighbouring elements that are updated together. All tensors have the same length.
struct UpdatedElements {
  kernels::Tensor parameters;              // f32, changed in place
  std::span<const kernels::Tensor> state;  // f32, one for each of the rule's slots, changed in place
  kernels::Tensor gradients;               // f32
  bool decayed = false;                    // whether weight decay applies
};

/// What is the same for all elements of a step.
struct UpdateSpec {
  std::int64_t step = 0;  // number of the update: 1, 2, ...
  double learning_rate = 0;
  kernels::Tensor scale;  // [1] f32: the gradient is scale * gradients
};

class UpdateRule {
 public:
  virtual ~UpdateRule() = default;
  /// Names of the state: for each slot the rule keeps one f32 number an element, which is 0 before the first update.
  /// Checkpoints store a slot under the name SLOT.PARAMETER (data/formats/checkpoint.md).
  virtual std::vector<std::string> slots() const = 0;
  virtual void update(const UpdatedElements& elements, const UpdateSpec& spec, const kernels::Stream& stream) const = 0;
};

/// The values that train.optimizer.rule takes.
std::vector<std::string> update_rule_names();

/// The rule that `settings` names. Throws std::invalid_argument for a name that update_rule_names() lacks.
std::unique_ptr<UpdateRule> make_update_rule(const OptimizerSettings& settings);

}  // namespace routescope::train
