// Records of made-up runs in which it is known what there is to find, for whatever reads or draws them.
#pragma once

#include <cmath>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "analysis/record/record.h"
#include "analysis/routes/slices.h"
#include "tests/analysis/probe/micro_model.h"

namespace routescope::testing {

inline std::size_t slice_index(const std::string& name) {
  for (std::size_t s = 0; s < analysis::num_slices; ++s) {
    if (analysis::slice_name(s) == name) return s;
  }
  throw std::logic_error("no slice " + name);
}

inline const std::vector<std::int64_t> study_steps = {0, 1, 2, 4, 8, 16};

/// The mean effect of masking a slice, nats a token. embedding.mlp.early comes at step 4 with 0.5, the current state in
/// early sublayers at step 2 with 0.1 each, and history.attn.late never: its effect stays within 0.001 although it
/// weighs the most.
inline double study_effect(std::size_t slice, std::int64_t step) {
  if (slice == slice_index("embedding.mlp.early")) return step >= 4 ? 0.5 : 0;
  if (slice == slice_index("current.attn.early") || slice == slice_index("current.mlp.early"))
    return step >= 2 ? 0.1 : 0;
  return 0;
}

/// history.attn.late weighs 0.6 from step 1 on, all others between 0.2 and 0.4.
inline double study_mass(std::size_t slice, std::int64_t step) {
  const bool late_attn = slice % 6 == 2, history = slice / 6 == 1;
  if (late_attn && step >= 1) return history ? 0.6 : 0.2;
  return history ? 0.3 : slice / 6 == 0 ? 0.3 : 0.4;
}

inline analysis::ProbeIdentity study_identity(const model::ModelConfig& config, std::int64_t sequences = 32) {
  analysis::ProbeIdentity identity;
  identity.tokens = micro_tokens(sequences, 8);
  for (std::int64_t i = 0; i < sequences; ++i) identity.tokens.documents.push_back(i);
  identity.settings.ablations = {analysis::Ablation::mask, analysis::Ablation::freeze};
  identity.settings.controls = 2;
  identity.model_config = config.to_json().dump();
  for (std::size_t s = 0; s < analysis::num_slices; ++s) identity.sets.push_back(analysis::slice_name(s));
  return identity;
}

/// Values of sequences about `mean`, a tenth of it apart (and 1e-4).
inline void add_sequences(std::vector<double>& out, double mean, std::int64_t sequences, std::mt19937_64& random) {
  std::normal_distribution<double> noise;
  for (std::int64_t i = 0; i < sequences; ++i) out.push_back(mean + (0.1 * std::abs(mean) + 1e-4) * noise(random));
}

/// What summarize() makes of values by sequence, by normal approximations that take no time.
inline void describe_effects(analysis::AblationEffects& effects) {
  const auto estimate = [](const std::vector<double>& values, double& p_value) {
    const double mean = analysis::mean(values);
    double squares = 0;
    for (double value : values) squares += (value - mean) * (value - mean);
    const double error = std::sqrt(squares / static_cast<double>(values.size() * (values.size() - 1)));
    p_value = std::erfc(std::abs(mean) / error / std::sqrt(2.0));
    return analysis::Estimate{mean, {mean - 2 * error, mean + 2 * error}};
  };
  std::vector<double> p_value, p_equivalence, excess_p;
  for (analysis::SetEffect& set : effects.sets) {
    const std::vector<double>& control = set.control.delta_nll_sequence;
    std::vector<double> excess = set.delta_nll_sequence;
    for (std::size_t i = 0; i < excess.size(); ++i) excess[i] -= control[i];
    set.delta_nll = estimate(set.delta_nll_sequence, p_value.emplace_back());
    set.control.excess = estimate(excess, excess_p.emplace_back());
    set.control.delta_nll = analysis::mean(control);
    set.sequences_used = static_cast<double>(excess.size());
    set.p_value = p_value.back();
    set.control.excess_p = excess_p.back();
    set.p_equivalence = p_equivalence.emplace_back(analysis::equivalence_test(set.delta_nll_sequence, 0.01));
  }
  p_value = analysis::holm_adjust(p_value);
  p_equivalence = analysis::holm_adjust(p_equivalence);
  excess_p = analysis::holm_adjust(excess_p);
  for (std::size_t s = 0; s < effects.sets.size(); ++s) {
    effects.sets[s].p_adjusted = p_value[s];
    effects.sets[s].p_equivalence_adjusted = p_equivalence[s];
    effects.sets[s].control.excess_p_adjusted = excess_p[s];
    effects.sets[s].contribution_control = effects.sets[s].control;
  }
}

inline analysis::AblationEffects study_effects(analysis::Ablation ablation, const analysis::ProbeIdentity& identity,
                                               std::int64_t step, std::mt19937_64& random) {
  const std::int64_t sequences = identity.tokens.sequences;
  analysis::AblationEffects effects;
  effects.ablation = ablation;
  for (std::size_t s = 0; s < analysis::num_slices; ++s) {
    const double effect = study_effect(s, step) * (ablation == analysis::Ablation::mask ? 1 : 0.25);
    analysis::SetEffect& set = effects.sets.emplace_back();
    add_sequences(set.delta_nll_sequence, effect, sequences, random);
    add_sequences(set.control.delta_nll_sequence, 0.1 * effect, sequences, random);
    set.coverage = 1;
    set.kl = std::abs(effect);
    set.top1_agreement = 1 - effect;
    set.control.overlap = 0.3;
    set.control.coverage = 1;
    set.control.enumerated = true;
  }
  describe_effects(effects);
  return effects;
}

/// An atlas whose estimate is right in sign and 10 % too small, with two true ablations a read.
inline analysis::Atlas study_atlas(const model::ReadPlan& plan, std::mt19937_64& random) {
  std::normal_distribution<double> normal;
  analysis::Atlas atlas;
  const auto columns = static_cast<std::size_t>(plan.num_columns());
  for (std::size_t r = 0; r < static_cast<std::size_t>(plan.num_routed()); ++r) {
    std::vector<double> row(columns, std::nan(""));
    if (plan.reads[r].columns.size() > 1) {
      for (int column : plan.reads[r].columns) row[static_cast<std::size_t>(column)] = 0.01 * normal(random);
      for (std::size_t i = 0; i < 2; ++i) {
        const int column = plan.reads[r].columns[i];
        const double effect = row[static_cast<std::size_t>(column)] / 0.9;
        atlas.checked.push_back(
            {static_cast<int>(r), column, analysis::CheckedBy::random, {effect, {effect - 1e-4, effect + 1e-4}}});
      }
    }
    for (double value : row) atlas.estimate.push_back({value, {value - 1e-4, value + 1e-4}});
  }
  atlas.first_order = atlas.estimate;
  atlas.rank_correlation = atlas.first_order_rank_correlation = 1;
  atlas.median_relative_error = 0.1;
  return atlas;
}

inline analysis::ProbeRow study_row(const analysis::ProbeIdentity& identity, std::int64_t step, bool atlas,
                                    std::mt19937_64& random) {
  const model::ReadPlan plan = identity.plan();
  analysis::ProbeRow row;
  row.step = step;
  row.model_sha256 = "of step " + std::to_string(step);
  row.reference_nll = 5;
  row.intact_nll = step == 0 ? 5 : 4;
  row.margin = 0.01 * (row.reference_nll - row.intact_nll);
  std::normal_distribution<double> of_text(0, 0.1);
  for (std::int64_t i = 0; i < identity.tokens.sequences; ++i)
    row.intact_nll_sequence.push_back(row.intact_nll + of_text(random));
  for (std::size_t s = 0; s < analysis::num_slices; ++s) {
    const double mass = study_mass(s, step);
    row.mass.push_back(mass);
    std::normal_distribution<double> noise(0, 0.01);
    for (std::int64_t i = 0; i < identity.tokens.sequences; ++i) row.mass_sequence.push_back(mass + noise(random));
  }
  row.contribution = row.norm_mass = row.mass;
  row.contribution_sequence = row.norm_mass_sequence = row.mass_sequence;
  for (int r = 0; r < plan.num_routed(); ++r) {
    std::vector<double> weight(static_cast<std::size_t>(plan.num_columns()), std::nan("")), variance = weight;
    const std::vector<int>& columns = plan.reads[static_cast<std::size_t>(r)].columns;
    for (int column : columns) {
      weight[static_cast<std::size_t>(column)] = 1.0 / static_cast<double>(columns.size());
      variance[static_cast<std::size_t>(column)] = columns.size() > 1 ? 0.01 * static_cast<double>(step) / 16 : 0;
    }
    row.alpha_mean.insert(row.alpha_mean.end(), weight.begin(), weight.end());
    row.alpha_variance.insert(row.alpha_variance.end(), variance.begin(), variance.end());
  }
  row.contribution_mean = row.norm_mass_mean = row.alpha_mean;
  for (analysis::Ablation ablation : identity.settings.ablations)
    row.ablations.push_back(study_effects(ablation, identity, step, random));
  if (atlas) row.atlas = study_atlas(plan, random);
  row.cost = {.plain = 100, .computed = 1000, .unshared = 2000, .undecided = 1500, .seconds = 10, .plain_seconds = 1};
  return row;
}

inline analysis::AnalysisRecord study_record(std::uint64_t seed, const std::vector<std::int64_t>& steps = study_steps) {
  analysis::AnalysisRecord record;
  record.identity = study_identity(micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum));
  record.created = "2026-01-01T00:00:00Z";
  std::mt19937_64 random(seed);
  for (std::int64_t step : steps) record.put(study_row(record.identity, step, step == steps.back(), random));
  return record;
}

/// The probe of a wrapped model: no routing by content, and its weights are their closed form.
inline analysis::AnalysisRecord study_baseline() {
  analysis::AnalysisRecord record;
  record.identity = study_identity(micro_config(model::Residual::block_attn_res, model::AttnResSource::cumulative));
  record.created = "2026-01-01T00:00:00Z";
  std::mt19937_64 random(99);
  analysis::ProbeRow row = study_row(record.identity, 0, false, random);
  for (double& variance : row.alpha_variance) variance *= 0;
  row.reference_nll = 6;
  row.margin = 0.01;
  row.closed_form_error = 5e-8;
  record.put(row);
  return record;
}

}  // namespace routescope::testing
