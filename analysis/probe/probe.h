// What one model's routing does, on given tokens: the mass of every set of routes, the causal effect of ablating it
// beside that of mass-matched controls, and what may be said of both.
#pragma once

#include <cstdint>
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

/// What the control of a set does: the same ablation of random sources that hold the set's mass in the same reads, mean
/// over draws. NaN, and no sequences, without controls.
struct ControlEffect {
  std::vector<double> delta_nll_sequence;  // [sequence] as SetEffect::delta_nll_sequence
  double delta_nll = nan;                  // its mean over the sequences measured
  Estimate excess;                         // the set's delta_nll minus this, paired over sequences; interval as there
  double excess_p = nan, excess_p_adjusted = nan;  // as p_value and p_adjusted of the set
  /// Share of the control's mass that was the set's own, in the reads that the ablation changes; NaN if there are none.
  double overlap = nan;
};

/// What an ablation does to the model when it is applied to one set of routes. A set that the ablation cannot change
/// (coverage 0) is not tested: all is NaN but coverage.
struct SetEffect {
  double coverage = nan;                   // ablation.h
  std::vector<double> delta_nll_sequence;  // [sequence] nats a token: ablated minus intact, mean over predicted tokens;
                                           // NaN where the set was decided before this sequence
  double sequences_used = nan;             // all of them without until_decided
  /// Mean over the sequences measured. The interval is paired over sequences: BCa, or with until_decided the confidence
  /// sequence.
  Estimate delta_nll;
  /// Sign-flip test, or with until_decided the anytime-valid p value; Holm over the sets that were tested.
  double p_value = nan, p_adjusted = nan;
  double p_equivalence = nan, p_equivalence_adjusted = nan;  // |effect| >= margin as null hypothesis (TOST)
  Decision decision = Decision::open;                        // by the confidence sequence; `open` without until_decided
  double kl = nan;                                           // KL(intact || ablated), nats, mean over predicted tokens
  double top1_agreement = nan;                               // share of predicted tokens with the same first choice
  /// [token classes, in their order][label] mean over the predicted tokens of that label.
  std::vector<std::vector<double>> delta_nll_class;
  ControlEffect control;
};

/// The effect of one kind of ablation on every set. Adjusted p values count the sets that were tested.
struct AblationEffects {
  Ablation ablation = Ablation::mask;
  std::vector<SetEffect> sets;  // in the order of the probe's sets; empty: not measured

  std::size_t tested() const;             // sets with coverage > 0
  std::vector<double> delta_nll() const;  // [set] its value
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
  double closed_form_error = nan;

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

/// The statistics of every set from its coverage and its values by sequence: all members but kl, top1_agreement,
/// delta_nll_class and the control's overlap. What probe() ends with.
void summarize(AblationEffects& effects, const ProbeSettings& settings, std::int64_t step);

/// The classes that the settings ask for, in the order position, repeat, class. Positions in bins 1, 2-3, 4-7, ...;
/// repeat: has the token occurred before in its sequence. Throws Error naming the class file and what is wrong there.
std::vector<TokenClasses> token_classes(const ProbeTokens& tokens, const ProbeSettings& settings);

}  // namespace routescope::analysis
