// Changes of the routing: one mechanism behind every bias, mask and ablation.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <vector>

#include "kernels/tensor.h"
#include "model/files/config.h"
#include "model/pass/model.h"
#include "model/pass/reads.h"

namespace routescope::model {

/// A change of one read after its weights are known: h = sum_i edited_i v_i over the read's sources and `extra`.
struct ReadEdit {
  /// Values that every token sees beside the read's own sources: each [d], in the activations' type, on the model's
  /// device.
  std::vector<kernels::Tensor> extra;
  /// Called on the host with the read's weights, alpha [tokens, n+1] (sources in the order of
  /// plan().reads[read].columns). Writes every element of edited [tokens, n+1+extras], the weights that the read then
  /// uses, with the extras last. They need not sum to one.
  std::function<void(std::span<const double> alpha, std::span<double> edited)> alpha;
};

struct RoutingIntervention {
  /// logit_bias[read][column], added before the softmax; -inf masks. Empty: none. Columns that a read lacks are
  /// ignored. A read whose every source would be masked is an error (std::invalid_argument).
  std::vector<std::vector<double>> logit_bias;
  /// read -> alpha [tokens, n+1] in the model's storage type and on its device. It replaces the softmax's result.
  std::map<int, kernels::Tensor> alpha_override;
  /// read -> edit of its weights, after logit_bias and alpha_override. There is no backward pass after a forward pass
  /// with edits (std::logic_error).
  std::map<int, ReadEdit> edits;
};

/// Throws std::invalid_argument for an edit that does not fit the model: a read that is not routed, or an extra of
/// another size, type or device.
void check_edits(const Model& model, const RoutingIntervention& intervention);

/// What is added to the logits of all routed reads, one read after another: the constant recency bias and the
/// intervention's logit_bias. Reads before `first_read` keep their entries of `before`, which is laid out alike.
std::vector<double> total_logit_bias(const ModelConfig& config, const ReadPlan& plan,
                                     const RoutingIntervention* intervention, int first_read,
                                     std::span<const double> before);

}  // namespace routescope::model
