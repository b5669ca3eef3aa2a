// Records filled by hand, in which it is known what there is to be found.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include "analysis/findings/findings.h"
#include "analysis/routes/slices.h"
#include "model/files/config.h"
#include "tests/analysis/probe/micro_model.h"

namespace routescope::testing {

inline constexpr int findings_sequences = 32;

/// The truth about one slice at one row.
struct Planted {
  double effect = 0, control = 0, mass = 0.2;
};

inline const model::ReadPlan& findings_plan() {
  static const model::ReadPlan plan(micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum));
  return plan;
}

inline int slice_index(const std::string& name) {
  const std::vector<analysis::Slice> slices = analysis::make_slices(findings_plan());
  for (std::size_t s = 0; s < slices.size(); ++s) {
    if (slices[s].name() == name) return static_cast<int>(s);
  }
  ADD_FAILURE() << "no slice " << name;
  return 0;
}

/// Rows at `steps`, with `noise` a sequence around planted(row, slice), drawn from `seed`; masses vary a hundredth of
/// that, and contributions are the masses. A slice of NaN effect was not tested. The loss falls from 5 at step 0 to 3
/// nats a token, and a hundredth of a nat counts as nothing. If `steps` do not begin with step 0 it comes before them,
/// without any effect.
inline analysis::AnalysisRecord planted_record(const std::vector<std::int64_t>& steps, double noise, std::uint64_t seed,
                                               const std::function<Planted(std::size_t, int)>& planted) {
  const model::ReadPlan& plan = findings_plan();
  analysis::AnalysisRecord record;
  record.identity.tokens = micro_tokens(findings_sequences, 8);
  for (int i = 0; i < findings_sequences; ++i) record.identity.tokens.documents.push_back(i);
  record.identity.model_config =
      micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum).to_json().dump();
  for (const analysis::Slice& slice : analysis::make_slices(plan)) record.identity.sets.push_back(slice.name());
  const auto routes = static_cast<std::size_t>(plan.num_routed() * plan.num_columns());
  std::mt19937_64 random(seed);
  std::normal_distribution<double> unit;  // of no noise there is none
  const auto normal = [&](std::mt19937_64& from) { return noise * unit(from); };
  const std::ptrdiff_t first = steps.front() == 0 ? 0 : -1;
  for (std::ptrdiff_t r = first; r < std::ssize(steps); ++r) {
    analysis::ProbeRow row;
    row.step = r < 0 ? 0 : steps[static_cast<std::size_t>(r)];
    row.margin = row.step == 0 ? 0 : 0.01;
    row.alpha_mean.assign(routes, 0.25);
    row.alpha_variance.assign(routes, 0.0);
    analysis::AblationEffects& effects = row.ablations.emplace_back();
    for (int s = 0; s < analysis::num_slices; ++s) {
      Planted truth = planted(static_cast<std::size_t>(std::max<std::ptrdiff_t>(r, 0)), s);
      if (r < 0 && !std::isnan(truth.effect)) truth.effect = truth.control = 0;
      analysis::SetEffect& set = effects.sets.emplace_back();
      set.coverage = std::isnan(truth.effect) ? 0 : 1;
      row.mass.push_back(truth.mass);
      for (int i = 0; i < findings_sequences; ++i) {
        row.mass_sequence.push_back(truth.mass + 0.01 * normal(random));
        set.delta_nll_sequence.push_back(truth.effect + normal(random));
        const double control = truth.control + normal(random);
        set.control.delta_nll_sequence.push_back(std::isnan(truth.effect) ? truth.effect : control);
      }
    }
    row.contribution_sequence = row.mass_sequence;
    for (int i = 0; i < findings_sequences; ++i)
      row.intact_nll_sequence.push_back((row.step == 0 ? 5 : 3) + 0.01 * normal(random));
    std::vector<double> equivalent, beyond;
    for (std::size_t s = 0; s < analysis::num_slices; ++s) {
      analysis::SetEffect& set = effects.sets[s];
      std::vector<double> excess = set.delta_nll_sequence;
      for (std::size_t i = 0; i < excess.size(); ++i) excess[i] -= set.control.delta_nll_sequence[i];
      set.control.excess.value = analysis::mean(excess);
      beyond.push_back(analysis::sign_flip_test(excess, {seed, static_cast<std::uint64_t>(row.step), s}, 1999));
      equivalent.push_back(analysis::equivalence_test(set.delta_nll_sequence, 0.01));
    }
    beyond = analysis::holm_adjust(beyond);
    equivalent = analysis::holm_adjust(equivalent);
    for (std::size_t s = 0; s < analysis::num_slices; ++s) {
      effects.sets[s].control.excess_p_adjusted = beyond[s];
      effects.sets[s].p_equivalence_adjusted = equivalent[s];
      effects.sets[s].contribution_control = effects.sets[s].control;
    }
    record.put(std::move(row));
  }
  return record;
}

inline const analysis::Motif* motif_named(const analysis::Findings& findings, const std::string& name) {
  for (const analysis::Motif& motif : findings.motifs) {
    if (motif.name == name) return &motif;
  }
  return nullptr;
}

}  // namespace routescope::testing
