// What one model's routing does, on given tokens: the mass of every set of routes, the causal effect of ablating it
// beside that of mass-matched controls, and what may be said of both.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "analysis/probe/atlas.h"
#include "analysis/probe/probe_tokens.h"
#include "analysis/routes/ablation.h"
#include "analysis/statistics/statistics.h"
#include "kernels/comm/communicator.h"
#include "model/pass/model.h"

namespace routescope::analysis {

/// A class of predicted tokens that effects are also given for: by position, or by what the token is.
struct TokenClasses {
  std::string name;                 // "position", "repeat", "class"
  std::vector<std::string> labels;  // of the classes
  std::vector<int> of_token;        // [sequences, positions - 1]: class of each predicted token, -1: none
};

/// What is measured, and what counts as what. Two probes that differ in it do not belong into one file.
struct ProbeSettings {
  std::uint64_t seed = 1;  // of resampling, controls and donors; the measurement itself has no chance in it
  std::vector<Ablation> ablations = {Ablation::mask};
  std::vector<std::string> sets = {};  // names of parse_route_set(); empty: the 18 slices
  int controls = 4;                    // draws of a mass-matched control for every set and ablation; 0: none
  double margin = 0.01;                // nats a token: what is shown to lie within it is as good as no effect
  bool until_decided = false;          // stop with a set as soon as its confidence sequence decides (statistics.h)
  std::int64_t look_every = 8;         // sequences between two looks at the confidence sequences
  bool by_position = false, by_repeat = false;
  std::string class_file = {};  // JSON: {"class": [token ids], ...}; empty: none

  bool operator==(const ProbeSettings&) const = default;
};

struct ProbeOptions {
  ProbeSettings settings = {};
  std::int64_t step = 0;  // of training; separates the resampling of one step from another's
  /// Sequences are probed in batches whose intact logits and shared activations take about this much (at least one
  /// sequence at a time).
  std::size_t batch_bytes = std::size_t{512} << 20;
  bool share_prefix = true;  // false: every ablation is computed from the first read; the same bits, for checks
  const ProbeTokens* patch = nullptr;  // aligned sequences whose routing Ablation::patch takes
};

enum class Decision { open, effect, absent };  // not decided; not zero; within the margin

/// The effect of one kind of ablation on every set. A set that the ablation cannot change (coverage 0) was not
/// tested: NaN in everything but coverage, and not counted in adjusted p values.
struct AblationEffects {
  Ablation ablation = Ablation::mask;
  std::vector<double> delta_nll_sequence;  // [set, sequence] nats a token: ablated minus intact, mean over predicted
                                           // tokens; NaN where a set was decided before this sequence
  std::vector<double> delta_nll;           // [set] its mean over the sequences measured
  /// [set] 95 % interval of that, paired over sequences: BCa, or with until_decided the confidence sequence.
  std::vector<double> ci_lower, ci_upper;
  /// [set] sign-flip test, or with until_decided the anytime-valid p value; Holm over the sets that were tested.
  std::vector<double> p_value, p_adjusted;
  std::vector<double> p_equivalence, p_equivalence_adjusted;  // [set] |effect| >= margin as null hypothesis (TOST)
  std::vector<double> kl;              // [set] KL(intact || ablated), nats, mean over predicted tokens
  std::vector<double> top1_agreement;  // [set] share of predicted tokens with the same first choice
  std::vector<double> coverage;        // [set] ablation.h
  std::vector<double> sequences_used;  // [set] all of them without until_decided; NaN if not tested
  std::vector<Decision> decision;      // [set] by the confidence sequence; `open` without until_decided
  /// [classes of ProbeOptions, in their order][set, label]: mean over the predicted tokens of that label.
  std::vector<std::vector<double>> delta_nll_class;

  // The control: the same ablation of random sources with the set's mass in the same reads, mean over draws. Empty
  // without controls.
  std::vector<double> control_sequence;  // [set, sequence] as delta_nll_sequence
  std::vector<double> control;           // [set]
  std::vector<double> excess;            // [set] delta_nll - control, paired over sequences
  std::vector<double> excess_lower, excess_upper, excess_p, excess_p_adjusted;  // [set] as for delta_nll
  /// [set] share of the controls' mass that was the set's own, in the reads that the ablation changes; NaN where it
  /// changes none.
  std::vector<double> control_overlap;
};

/// What the measurement took, in tokens times reads that were computed, so that it does not depend on the clock: a pass
/// over N tokens from read r of R on counts N (R - r), each read with the sublayer that it feeds, the last one with the
/// head. The head thus counts as one read, whatever the vocabulary. Two intact passes (one for what `mean`, `freeze`
/// and controls refer to, one that ablations are compared with), and one more for `patch`, are counted; the comparison
/// of logits and the atlas are not.
struct ProbeCost {
  double plain = 0;          // one pass over the tokens: a plain evaluation
  double computed = 0;       // what was computed
  double unshared = 0;       // the same passes, each from the first read
  double undecided = 0;      // with shared prefixes, without stopping early
  double seconds = 0;        // of all that, on the first rank
  double plain_seconds = 0;  // of its first intact passes with the head, which are a plain evaluation
};

/// One row of a record.
struct ProbeRow {
  std::int64_t step = 0;
  std::string model_sha256;                 // of model.safetensors
  std::vector<double> mass;                 // [set] slices.h
  std::vector<double> mass_sequence;        // [set, sequence] of one sequence's tokens
  std::vector<double> alpha_mean;           // [reads, columns] over all tokens; NaN for a column that a read lacks
  std::vector<double> alpha_variance;       // [reads, columns] over all tokens: 0 where content does not matter
  double intact_nll = 0;                    // nats a token, mean over predicted tokens
  std::vector<double> intact_nll_sequence;  // [sequence]
  std::vector<AblationEffects> ablations;   // in the order of settings.ablations
  Atlas atlas;                              // empty from probe(); make_atlas()
  ProbeCost cost;

  /// Of alpha, over all reads and tokens (claims.h); NaN for a model that has no closed form.
  double closed_form_error = std::numeric_limits<double>::quiet_NaN();

  const AblationEffects* find(Ablation ablation) const;
  /// Throws std::logic_error if it was not measured.
  const AblationEffects& effects(Ablation ablation) const;
};

/// Ablates every set in turn. Throws Error for a model without reads, tokens that do not fit it (for `patch`: no
/// aligned ones), or `mean` without room (expect_room_for_means()); UsageError for sets that the model does not have,
/// or too few sequences to decide anything by. Ranks share the sequences and all return the row of all of them. Its
/// numbers are sums over sequences in their order, however many ranks there are: the same bits where a sequence's own
/// are (another batch size may take another path through a matrix product, whose f32 sums then differ in their last
/// bits).
ProbeRow probe(const model::Model& model, const ProbeTokens& tokens, const ProbeOptions& options,
               kernels::Communicator& communicator);
/// In a process alone.
ProbeRow probe(const model::Model& model, const ProbeTokens& tokens, const ProbeOptions& options);

/// What the confidence sequence of a set's effects so far, one of `tested` sets, says at the level 1 - 0.05 / tested:
/// absent if it lies within (-margin, margin), also where it excludes zero; effect if it excludes zero.
Decision decide(std::span<const double> delta_nll, std::size_t tested, double margin);

/// The statistics of `effects` from its values by sequence (delta_nll_sequence, control_sequence, coverage): all fields
/// but kl, top1_agreement, delta_nll_class and control_overlap. What probe() ends with.
void summarize(AblationEffects& effects, std::int64_t sequences, const ProbeOptions& options);

/// The classes that the settings ask for, in the order position, repeat, class. Positions in bins 1, 2-3, 4-7, ...;
/// repeat: has the token occurred before in its sequence. Throws Error naming the class file and what is wrong there.
std::vector<TokenClasses> token_classes(const ProbeTokens& tokens, const ProbeSettings& settings);

}  // namespace routescope::analysis
