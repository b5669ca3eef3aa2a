// What one model's routing does, on given tokens: the mass of every slice, and the causal effect of ablating it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "analysis/probe_tokens.h"
#include "analysis/slices.h"
#include "kernels/communicator.h"
#include "model/model.h"

namespace routescope {

struct ProbeOptions {
  std::uint64_t seed = 1;  // of the resampling; the measurement itself has no chance in it
  std::int64_t step = 0;   // of training; separates the resampling of one step from another's
  /// Sequences are probed in batches whose intact logits and shared activations take about this much (at least one
  /// sequence at a time).
  std::size_t batch_bytes = std::size_t{512} << 20;
  bool share_prefix = true;  // false: every ablation is computed from the first read; the same bits, for checks
};

/// The effect of one kind of ablation on every slice. A slice that the ablation cannot change (coverage 0) was not
/// tested: NaN in everything but coverage, and not counted in p_adjusted.
struct AblationEffects {
  std::vector<double>
      delta_nll_sequence;         // [slice, sequence] nats a token: ablated minus intact, mean over predicted tokens
  std::vector<double> delta_nll;  // [slice] its mean over sequences
  std::vector<double> ci_lower, ci_upper;   // [slice] 95 % interval of that, paired over sequences (statistics.h)
  std::vector<double> p_value, p_adjusted;  // [slice] sign-flip test; Holm over the slices that were tested
  std::vector<double> kl;                   // [slice] KL(intact || ablated), nats, mean over predicted tokens
  std::vector<double> top1_agreement;       // [slice] share of predicted tokens with the same first choice
  std::vector<double> coverage;             // [slice] slices.h
};

/// One row of a record.
struct ProbeRow {
  std::int64_t step = 0;
  std::string model_sha256;                 // of model.safetensors
  std::vector<double> mass;                 // [slice] slices.h
  double intact_nll = 0;                    // nats a token, mean over predicted tokens
  std::vector<double> intact_nll_sequence;  // [sequence]
  AblationEffects mask;
};

/// Masks every slice in turn. Throws Error for a model without reads, or tokens that do not fit it.
/// Ranks share the sequences and all return the row of all of them. Its numbers are sums over sequences in their order,
/// however many ranks there are: the same bits where a sequence's own are (another batch size may take another path
/// through a matrix product, whose f32 sums then differ in their last bits).
ProbeRow probe(const Model& model, const ProbeTokens& tokens, const ProbeOptions& options, Communicator& communicator);
/// In a process alone.
ProbeRow probe(const Model& model, const ProbeTokens& tokens, const ProbeOptions& options);

/// The statistics of `effects` from its delta_nll_sequence; what probe() ends with.
void summarize(AblationEffects& effects, std::int64_t sequences, const ProbeOptions& options);

}  // namespace routescope
