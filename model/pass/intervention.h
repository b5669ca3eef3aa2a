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

/// A value beside a read's own sources. Token t sees row rows[t] of `table`, or of one of the read's own sources in
/// this pass, those of the same sequences.
struct ExtraValue {
  kernels::Tensor table = {};  // [m, d] in the activations' type, on the model's device; undefined: of `source`
  int source = -1;             // in the order of plan().reads[read].columns
  std::vector<std::int32_t> rows = {};  // [tokens]; empty: row 0
};

/// After a read's weights are known: h = sum_i edited_i v_i over its sources and `extra`. Not routed: the partial,
/// by 1.
struct ReadEdit {
  std::vector<ExtraValue> extra = {};
  /// First, if given: called on the host with what the softmax took, logits [tokens, n+1] (sources in the order of
  /// plan().reads[read].columns, -inf where masked), and may change them: alpha becomes the softmax of what it leaves.
  std::function<void(std::span<double> logits)> logits = {};
  /// Then, unless it is empty and there are no extras: called with the read's weights, alpha [tokens, n+1]. Writes
  /// every element of edited [tokens, n+1+extras], the weights that the read then uses, with the extras last. They need
  /// not sum to one.
  std::function<void(std::span<const double> alpha, std::span<double> edited)> alpha = {};
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

/// Throws std::invalid_argument for an edit that does not fit the model: a read that is not there, an edit of nothing,
/// or an extra of another size, type or device, of a source that the read lacks, or with rows that are not there or not
/// as many as `tokens`.
void check_edits(const Model& model, const RoutingIntervention& intervention, std::int64_t tokens);

/// One intervention for all sequences of a batch, or one for each, or none. It refers to them.
class Interventions {
 public:
  explicit Interventions(const RoutingIntervention* of_all = nullptr) : all_(of_all) {}
  explicit Interventions(std::span<const RoutingIntervention> of_sequences) : each_(of_sequences) {}

  const RoutingIntervention* of(std::int64_t sequence) const {
    return each_.empty() ? all_ : &each_[static_cast<std::size_t>(sequence)];
  }
  /// The weights that a sequence's read r has in place of the softmax's result; undefined without.
  kernels::Tensor alpha_override(std::int64_t sequence, int r) const;
  const ReadEdit* edit(std::int64_t sequence, int r) const;
  /// Whether read r has to be computed for every sequence by itself, its logit bias apart.
  bool differ_at(int r) const;

 private:
  const RoutingIntervention* all_ = nullptr;
  std::span<const RoutingIntervention> each_;
};

/// What a read's learned and constant biases add to its logits [n+1], without any intervention.
std::vector<double> own_logit_bias(const Model& model, int read);

/// What is added to the logits of one routed read: the constant recency bias and the interventions' logit_bias, into
/// `total` [sequences, n+1]. Returns whether sequences differ. Throws std::invalid_argument for a read whose every
/// source would be masked.
bool total_logit_bias(const ModelConfig& config, const ReadPlan& plan, int read, const Interventions& interventions,
                      std::span<double> total);

}  // namespace routescope::model
