// The results of a probe of one model: a row of a record.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "analysis/results/answers.h"
#include "analysis/routes/ablation.h"
#include "analysis/statistics/statistics.h"

namespace routescope::analysis {

/// Not decided; the effect is not zero; it is within the margin.
enum class Decision { open, effect, absent };

/// The effect of the controls of a set (controls.h): the same ablation of other sources that hold as much in the same
/// reads. Every document has draws of its own, whose spread is therefore a part of that of documents. Without controls,
/// and where none can differ from the set, everything is NaN but the coverage.
struct ControlEffect {
  double coverage = nan;    // of the reads that the ablation changes: where a control can differ from the set
  bool enumerated = false;  // all controls that there are were taken, on every sequence
  std::vector<double> delta_nll_sequence;  // [sequence] mean over the controls of the sequence, as that of the set
  double delta_nll = nan;                  // its mean over the sequences measured
  Estimate excess;                         // the set's delta_nll minus this, paired over sequences
  double excess_p = nan, excess_p_adjusted = nan;  // two-sided, of no excess; adjusted as those of the set
  /// Share of what the controls hold that was the set's own, in the reads that the ablation changes.
  double overlap = nan;
};

/// The effect of an ablation along some ways only (MATH.md, "Routes as edges"). `frozen`: every later read keeps the
/// weights of the intact model; `direct`: only the head sees what the set's sublayers make of the ablation. Everything
/// is NaN where it was not measured.
struct PathEffect {
  std::vector<double> delta_nll_sequence;  // as that of the set
  Estimate delta_nll;
  /// Of `frozen`: its effect minus the total one, which later routing repairs (below zero: makes worse). Of `direct`:
  /// the total effect minus it, which goes through other sublayers.
  Estimate difference;
  double p = nan, p_adjusted = nan;  // two-sided, of no difference; adjusted as those of the set
  Estimate share;  // of `frozen`: difference over its effect; NaN where that is not shown to be above 0
};

/// What an ablation adds to a metric of a task's answers.
struct MetricEffect {
  std::vector<double> delta_sequence;  // [sequence] ablated minus intact; NaN as in SetEffect::delta_nll_sequence
  Estimate delta;                      // its mean, with an interval as that of delta_nll
};

/// The effect of an ablation of one set of routes. A set that the ablation cannot change (coverage 0) is not tested:
/// everything is NaN but its coverage.
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
  ControlEffect control;               // matched on alpha
  ControlEffect contribution_control;  // matched on contribution
  PathEffect frozen, direct;
  std::array<MetricEffect, num_metrics> metrics;  // of a task; else empty and NaN
};

/// The effect of one kind of ablation on every set. Adjusted p values count the sets that were tested.
struct AblationEffects {
  Ablation ablation = Ablation::mask;
  std::vector<SetEffect> sets;  // in the order of the probe's sets; empty: not measured
  Estimate repaired_share;      // PathEffect::share of the sums over all tested sets

  std::size_t tested() const;             // sets with coverage > 0
  std::vector<double> delta_nll() const;  // [set] its value
};

/// The work of a measurement, in tokens times computed reads, which does not depend on the clock. A pass over N tokens
/// from read r of R on counts N (R - r). A read counts with the sublayer that it feeds, the last read with the head, so
/// that the head counts as one read whatever the vocabulary. Two intact passes are counted (one gives the means for
/// `mean`, `freeze` and controls; ablations are compared with the other), and one more for `patch`. The comparison of
/// logits and the atlas (which has its own) are not counted.
struct ProbeCost {
  double plain = 0;          // one pass over the tokens: a plain evaluation
  double computed = 0;       // the passes of this measurement
  double unshared = 0;       // the same passes, each from the first read
  double undecided = 0;      // the passes if no set were stopped early
  double seconds = 0;        // of the measurement, on the first rank
  double plain_seconds = 0;  // of its first intact passes with the head, which are a plain evaluation
};

/// Why a route was really masked: drawn at random from all routes, or among the strongest by the estimate.
enum class CheckedBy : std::int8_t { random, strongest };

/// A route that was really masked.
struct CheckedRoute {
  int read = 0, column = 0;
  CheckedBy by = CheckedBy::random;
  Estimate true_effect;              // as Atlas::first_order
  double p = nan, p_adjusted = nan;  // two-sided, of no effect; Holm over the routes that were masked
};

/// Effects are of `mask` on single routes, nats a token, mean over predicted tokens and sequences. Intervals: 95 % BCa
/// over documents. Tables are [reads, columns], NaN for a route that is not there or cannot be masked.
struct Atlas {
  /// <g, dy> + (1/2) <g~, dy>^2, summed over tokens (MATH.md, "The atlas"), with the exact change dy of what the read's
  /// sublayer makes: it ranks routes; large effects it misjudges.
  std::vector<Estimate> estimate;
  /// Minus the gradient of the nll with respect to a gate on exp(logit), summed over tokens: the linear estimate of the
  /// nll without the route minus the nll.
  std::vector<Estimate> first_order;
  /// By read and column. The random ones are drawn without replacement from all routes that can be masked, by the seed
  /// alone, so that all steps of a run check the same ones; the others are the strongest by |estimate|, as far as they
  /// were not drawn.
  std::vector<CheckedRoute> checked;
  // Over the random ones of `checked`; NaN without any.
  double rank_correlation = nan;              // Spearman, of estimate and true_effect
  double first_order_rank_correlation = nan;  // of first_order and true_effect
  double median_relative_error = nan;         // |estimate - true| / |true|
  double estimate_seconds = nan;              // what the estimates took
  double check_seconds = nan;                 // and what the true ablations took
  double check_passes = nan;                  // the same in plain forward passes, counted as ProbeCost counts

  bool empty() const { return first_order.empty(); }
  /// False for what an older file holds.
  bool has_estimate() const;
  /// How many of `checked` were drawn at random.
  std::size_t random_checks() const;
};

/// What an ablation of a writer's output does, in every read behind it. Statistics as those of a set; NaN where it was
/// not tested.
struct WriterEffect {
  std::vector<double> delta_nll_sequence;  // [sequence] nats a token
  Estimate delta_nll;
  double p_value = nan, p_adjusted = nan, p_equivalence = nan, p_equivalence_adjusted = nan;
};

/// Masses and effects by writing sublayer, in every residual mode (MATH.md, "Routes as edges": Writers). Writer 0 is
/// the embedding, writer w the sublayer that read w - 1 feeds; reads are all of the plan, those that are not routed
/// too. Masses are means over all tokens of the intact model, with Student's interval over documents.
struct Writers {
  /// [reads, writers] omega_r[j] <y_j, h_r> / |h_r|^2, and |omega_r[j] y_j| / sum_k |omega_r[k] y_k|: both sum to one
  /// over the writers of a read. Where a divisor is 0 omega over its sum takes their place. NaN for a writer behind the
  /// read.
  std::vector<Estimate> contribution, norm_mass;
  std::vector<Estimate> mean_contribution, mean_norm_mass;  // [writers] mean over the reads behind the writer
  /// [routed reads, columns] the part of a source's contribution (ProbeRow::contribution_mean) that is the embedding's:
  /// all of it for block_sum's embedding, 0 for its other sources. NaN for a column that a read lacks.
  std::vector<Estimate> embedding_part;
  /// [writers] of y_j's term replaced by 0, and by its mean over the probe tokens. The weights of the next reads
  /// respond as their sources change, whose keys still hold y_j. `zero` of the embedding is not tested: without it
  /// nothing is left of the first reads but rounding, which every RMSNorm enlarges, so that there is no such number.
  std::vector<WriterEffect> zero, mean;
  double passes = nan;  // plain forward passes, counted as ProbeCost counts; two of them are intact
  double seconds = nan;

  bool empty() const { return contribution.empty(); }
};

/// One row of a record.
struct ProbeRow {
  std::int64_t step = 0;
  std::string model_sha256;           // of model.safetensors
  std::vector<double> mass;           // [set] slices.h
  std::vector<double> mass_sequence;  // [set, sequence] of one sequence's tokens
  /// Contribution and norm-weighted mass (MATH.md, "Masses"): as mass, mass_sequence and alpha_mean, with
  /// alpha_i <v_i, h> / |h|^2 and |alpha_i v_i| / sum_j |alpha_j v_j| in place of alpha_i.
  std::vector<double> contribution, contribution_sequence, contribution_mean;
  std::vector<double> norm_mass, norm_mass_sequence, norm_mass_mean;
  std::vector<double> alpha_mean;      // [reads, columns] over all tokens; NaN for a column that a read lacks
  std::vector<double> alpha_variance;  // [reads, columns] over all tokens: 0 where content does not matter
  double reference_nll = nan;          // of the model at step 0; without it ln(vocabulary), a uniform guess
  double margin = nan;  // nats a token: settings.margin times what was learned, reference_nll - intact_nll, if positive
  double intact_nll = 0;                                                 // nats a token, mean over predicted tokens
  std::vector<double> intact_nll_sequence;                               // [sequence]
  MetricValues intact_metrics{nan, nan, nan};                            // of a task: mean over its prompts
  std::array<std::vector<double>, num_metrics> intact_metrics_sequence;  // [metric][sequence]; else empty
  std::vector<AblationEffects> ablations;                                // in the order of settings.ablations
  Atlas atlas;                                                           // of make_atlas(); probe() leaves it empty
  Writers writers;                                                       // of measure_writers(); likewise
  ProbeCost cost;

  /// Of alpha, over all reads and tokens (claims.h); NaN for a model that has no closed form.
  double closed_form_error = nan;

  const AblationEffects* find(Ablation ablation) const;
  /// Throws std::logic_error if it was not measured.
  const AblationEffects& effects(Ablation ablation) const;
};

}  // namespace routescope::analysis
