// A report of any size, hand-filled with made-up numbers: what the page shows of a probed run, without probing one.
#pragma once

#include <cmath>
#include <random>

#include "analysis/commands/tables.h"
#include "analysis/report/report.h"
#include "analysis/routes/slices.h"
#include "model/pass/reads.h"

namespace routescope::testing {

struct SampleShape {
  std::vector<std::int64_t> steps;
  std::vector<analysis::Ablation> ablations = {analysis::Ablation::mask};
  std::int64_t sequences = 8, positions = 12;
  bool atlas = true;
};

/// Effects grow to `strength[slice]`; all numbers differ from each other.
inline analysis::AnalysisRecord sample_record(const model::ModelConfig& config, const SampleShape& shape,
                                              std::uint64_t seed) {
  const model::ReadPlan plan(config);
  const auto reads = static_cast<std::size_t>(plan.num_routed()),
             columns = static_cast<std::size_t>(plan.num_columns());
  const auto sequences = static_cast<std::size_t>(shape.sequences);
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  std::vector<double> strength, weight;
  for (int s = 0; s < analysis::num_slices; ++s) {
    strength.push_back(std::exp(1.5 * normal(random) - 3));
    weight.push_back(std::exp(normal(random)));
  }
  analysis::AnalysisRecord out;
  out.identity.tokens = {shape.sequences, shape.positions,
                         std::vector<std::int32_t>(sequences * static_cast<std::size_t>(shape.positions), 7), "sample"};
  out.identity.settings.ablations = shape.ablations;
  out.identity.model_config = config.to_json().dump();
  for (int s = 0; s < analysis::num_slices; ++s)
    out.identity.sets.push_back(analysis::slice_name(static_cast<std::size_t>(s)));
  for (std::int64_t step : shape.steps) {
    const double grown = 1 - std::exp(-static_cast<double>(step) / 200);
    analysis::ProbeRow row;
    row.step = step;
    row.intact_nll = 8 - 4 * grown;
    row.intact_nll_sequence.assign(sequences, row.intact_nll);
    row.alpha_mean.assign(reads * columns, std::nan(""));
    row.alpha_variance = row.alpha_mean;
    for (std::size_t r = 0; r < reads; ++r) {
      const auto& there = plan.reads[r].columns;
      for (int column : there) {
        row.alpha_mean[r * columns + static_cast<std::size_t>(column)] = 1.0 / static_cast<double>(there.size());
        row.alpha_variance[r * columns + static_cast<std::size_t>(column)] = 0.01 * grown * std::abs(normal(random));
      }
    }
    for (int s = 0; s < analysis::num_slices; ++s) {
      double sum = 0;
      for (int family = 0; family < 3; ++family)
        sum += std::pow(weight[static_cast<std::size_t>(family * 6 + s % 6)], grown);
      const double mass = std::pow(weight[static_cast<std::size_t>(s)], grown) / sum;
      row.mass.push_back(mass);
      for (std::size_t n = 0; n < sequences; ++n) row.mass_sequence.push_back(mass * (1 + 0.01 * normal(random)));
    }
    for (analysis::Ablation ablation : shape.ablations) {
      analysis::AblationEffects effects;
      effects.ablation = ablation;
      for (int s = 0; s < analysis::num_slices; ++s) {
        const double share = std::exp(-0.7 * static_cast<double>(effects.ablation)) * grown;
        analysis::SetEffect& set = effects.sets.emplace_back();
        for (std::size_t n = 0; n < sequences; ++n) {
          set.delta_nll_sequence.push_back(strength[static_cast<std::size_t>(s)] * share * (1 + 0.3 * normal(random)));
          set.control.delta_nll_sequence.push_back(0.06 * share * (1 + 0.3 * normal(random)));
        }
        set.kl = 0.02 * std::abs(normal(random));
        set.top1_agreement = 1 - 0.1 * grown;
        set.coverage = s % 7 == 6 ? 0.5 : 1;
        set.control.overlap = 0.3;
      }
      analysis::summarize(effects, out.identity.settings, step);
      row.ablations.push_back(std::move(effects));
    }
    if (shape.atlas) {
      analysis::Atlas& atlas = row.atlas;
      for (std::size_t at = 0; at < row.alpha_mean.size(); ++at) {
        analysis::Estimate& route = atlas.first_order.emplace_back();
        if (std::isnan(row.alpha_mean[at])) continue;
        const double value = 0.02 * grown * normal(random) * std::exp(normal(random));
        route = {value, {value - 0.002, value + 0.002}};
        if (atlas.checked.size() < 48 && at % 3 == 0) {
          const double effect = value * (1.2 + 0.3 * normal(random));
          atlas.checked.push_back({static_cast<int>(at / columns),
                                   static_cast<int>(at % columns),
                                   {effect, {effect - 0.003, effect + 0.003}}});
        }
      }
      atlas.rank_correlation = {0.9, {0.85, 0.94}};
      atlas.median_relative_error = 0.3;
    }
    out.put(std::move(row));
  }
  return out;
}

/// What routing.h5 of such a model would hold: `snapshots` of them, and `losses` training steps.
inline data::RoutingRecordView sample_routing(const model::ModelConfig& config, std::int64_t snapshots,
                                              std::int64_t losses) {
  const model::ReadPlan plan(config);
  const auto columns = static_cast<std::size_t>(plan.num_columns());
  data::RoutingRecordView out;
  out.info.sources = plan.columns;
  out.info.sequences = 32;
  out.info.positions = 256;
  for (int r = 0; r < plan.num_routed(); ++r) {
    const model::Read& read = plan.reads[static_cast<std::size_t>(r)];
    out.info.reads.push_back(read.name);
    out.info.layer.push_back(static_cast<std::int32_t>(read.layer));
    out.info.sublayer.push_back(model::to_string(read.sublayer));
    out.info.depth.push_back(model::to_string(plan.depth(r)));
  }
  std::mt19937_64 random(5);
  std::uniform_real_distribution<float> share(0.0F, 1.0F);
  for (std::int64_t i = 0; i < snapshots; ++i) {
    data::RoutingSnapshot snapshot;
    snapshot.step = i * 10;
    snapshot.alpha_mean.assign(out.info.reads.size() * columns, std::nanf(""));
    snapshot.alpha_std = snapshot.alpha_mean;
    for (std::size_t r = 0; r < out.info.reads.size(); ++r) {
      for (int column : plan.reads[r].columns) {
        snapshot.alpha_mean[r * columns + static_cast<std::size_t>(column)] = share(random);
        snapshot.alpha_std[r * columns + static_cast<std::size_t>(column)] = 0.1F * share(random);
      }
      snapshot.alpha_entropy.push_back(2 * share(random));
    }
    out.snapshots.push_back(std::move(snapshot));
  }
  for (std::int64_t step = 1; step <= losses; ++step)
    out.train.push_back({step, step * 64, 1.0 + 1.0 / static_cast<double>(step), 1e-3, 1.0, 1000.0, 0.064});
  return out;
}

/// A text in which every token is routed otherwise.
inline analysis::RoutedText sample_text(const model::ModelConfig& config, std::int64_t sequences,
                                        std::int64_t positions) {
  const model::ReadPlan plan(config);
  const auto reads = static_cast<std::size_t>(plan.num_routed()),
             columns = static_cast<std::size_t>(plan.num_columns());
  const auto tokens = static_cast<std::size_t>(sequences * positions);
  analysis::RoutedText out;
  out.step = 400;
  out.origin = "sample";
  out.sequences = sequences;
  out.positions = positions;
  for (std::size_t t = 0; t < tokens; ++t) out.tokens.push_back(" word" + std::to_string(t));
  out.alpha.assign(reads * tokens * columns, std::nanf(""));
  std::mt19937_64 random(6);
  std::uniform_real_distribution<float> share(0.0F, 1.0F);
  for (std::size_t r = 0; r < reads; ++r) {
    for (std::size_t t = 0; t < tokens; ++t) {
      for (int column : plan.reads[r].columns)
        out.alpha[(r * tokens + t) * columns + static_cast<std::size_t>(column)] = share(random);
    }
  }
  return out;
}

}  // namespace routescope::testing
