// The optimizer: an update rule (update_rule.h) over this rank's share of the parameters (sharded_parameters.h), and
// the rule's state. Matrices and the embedding are decayed; gains, biases and routing queries are not.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "train/optimizer/sharded_parameters.h"
#include "train/optimizer/update_rule.h"

namespace routescope::train {

/// A stretch of the flat arrays whose state this rank holds.
struct StateRange {
  std::int64_t begin = 0, end = 0;     // elements of the flat arrays (model/pass/parameters.h)
  std::vector<kernels::Tensor> state;  // by slot, [end - begin] f32
  kernels::Tensor parameters;          // [end - begin] f32: the masters
  bool written = true;                 // by this rank into checkpoints; exactly one rank writes an element
};

/// Views of everything that an update changes on this rank.
struct OptimizerState {
  std::vector<std::string> slots;  // UpdateRule::slots()
  std::vector<StateRange> ranges;  // in the order of the flat arrays; neighbours are one range where memory allows
};

class Optimizer {
 public:
  /// With the state before the first update. For the other arguments see ShardedParameters.
  Optimizer(model::Model& model, const OptimizerSettings& settings, kernels::Communicator& communicator,
            const Sharding& sharding);

  ShardedParameters& parameters() { return parameters_; }
  const OptimizerState& state() const { return state_; }

  /// Whether every parameter and every number of the rule's state is finite, on all ranks. Collective.
  bool finite(const kernels::Stream& stream);

  /// Update number `step` (1, 2, ...) with `scale` times the summed gradients. The updated parameters are published:
  /// see ShardedParameters::need().
  void update(kernels::Tensor gradients, double scale, double learning_rate, std::int64_t step,
              const kernels::Stream& stream);

 private:
  std::vector<kernels::Tensor> state_of(std::int64_t begin, std::int64_t size) const;
  OptimizerState make_state() const;

  ShardedParameters parameters_;
  std::unique_ptr<UpdateRule> rule_;
  std::vector<kernels::OwnedTensor> arrays_;  // by slot: [elements of all shares, then the vectors]
  kernels::OwnedTensor scale_;                // [1]
  kernels::OwnedTensor squares_;              // [1] f64
  OptimizerState state_;
};

/// The arrays as long as the parameters that one of `ranks` ranks holds while it trains: parameters, their bf16 copies,
/// gradients, the optimizer's state. Without the bytes that collectives need for themselves.
std::vector<kernels::Arena::Part> training_arrays(const model::ModelConfig& config, const model::ModelOptions& options,
                                                  const OptimizerSettings& settings, const Sharding& sharding,
                                                  int ranks);

}  // namespace routescope::train
