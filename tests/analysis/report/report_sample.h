// Studies of any size, filled with made-up numbers: what the page shows of probed runs, without probing any.
#pragma once

#include <algorithm>
#include <cmath>
#include <random>

#include "analysis/probe/summarize.h"
#include "analysis/report/routed_text.h"
#include "analysis/report/study.h"
#include "analysis/routes/slices.h"
#include "model/pass/reads.h"
#include "tests/analysis/probe/micro_model.h"

namespace routescope::testing {

struct SampleShape {
  std::vector<std::int64_t> steps;
  std::vector<analysis::Ablation> ablations = {analysis::Ablation::mask};
  std::int64_t sequences = 16, positions = 12;
  bool atlas = true;
  bool ways = false;  // frozen and direct effects too
};

/// What the slices of a made-up model weigh and do where training ends.
struct SampleSlices {
  std::vector<double> strength, weight;

  explicit SampleSlices(std::mt19937_64& random) {
    std::normal_distribution<double> normal;
    for (int s = 0; s < analysis::num_slices; ++s) {
      strength.push_back(std::exp(1.5 * normal(random) - 3));
      weight.push_back(std::exp(normal(random)));
    }
  }
  /// At a time when training has gone so far, from 0 to 1: the three families of a kind of reads share the mass.
  double mass(std::size_t slice, double grown) const {
    double sum = 0;
    for (std::size_t family = 0; family < 3; ++family) sum += std::pow(weight[family * 6 + slice % 6], grown);
    return std::pow(weight[slice], grown) / sum;
  }
};

inline analysis::AblationEffects sample_effects(analysis::Ablation ablation, const SampleSlices& slices, double grown,
                                                const SampleShape& shape, std::mt19937_64& random) {
  std::normal_distribution<double> normal;
  analysis::AblationEffects effects;
  effects.ablation = ablation;
  const double share = std::exp(-0.7 * static_cast<double>(ablation)) * grown;
  for (std::size_t s = 0; s < analysis::num_slices; ++s) {
    analysis::SetEffect& set = effects.sets.emplace_back();
    for (std::int64_t n = 0; n < shape.sequences; ++n) {
      set.delta_nll_sequence.push_back(slices.strength[s] * share * (1 + 0.3 * normal(random)));
      set.control.delta_nll_sequence.push_back(0.06 * share * (1 + 0.3 * normal(random)));
      if (!shape.ways) continue;
      const double total = set.delta_nll_sequence.back();
      set.frozen.delta_nll_sequence.push_back(total * (s % 2 ? 1.4 : 0.8) * (1 + 0.1 * normal(random)));
      set.direct.delta_nll_sequence.push_back(total * 0.6 * (1 + 0.1 * normal(random)));
    }
    set.kl = 0.02 * std::abs(normal(random));
    set.top1_agreement = 1 - 0.1 * grown;
    set.coverage = s % 7 == 6 ? 0.5 : 1;
    set.control.overlap = 0.3;
  }
  return effects;
}

/// Of the routes with a weight; every third is checked, every sixth for being strong. First order is half the estimate.
inline analysis::Atlas sample_atlas(const std::vector<double>& alpha_mean, std::size_t columns, double grown,
                                    std::mt19937_64& random) {
  std::normal_distribution<double> normal;
  analysis::Atlas atlas;
  for (std::size_t at = 0; at < alpha_mean.size(); ++at) {
    analysis::Estimate &route = atlas.estimate.emplace_back(), &first_order = atlas.first_order.emplace_back();
    if (std::isnan(alpha_mean[at])) continue;
    const double value = 0.02 * grown * normal(random) * std::exp(normal(random));
    route = {value, {value - 0.002, value + 0.002}};
    first_order = {value / 2, {value / 2 - 0.002, value / 2 + 0.002}};
    if (atlas.checked.size() == 48 || at % 3 != 0) continue;
    const double effect = value * (1.2 + 0.3 * normal(random));
    const auto by = at % 6 == 0 ? analysis::CheckedBy::strongest : analysis::CheckedBy::random;
    atlas.checked.push_back({static_cast<int>(at / columns),
                             static_cast<int>(at % columns),
                             by,
                             {effect, {effect - 0.003, effect + 0.003}}});
  }
  atlas.rank_correlation = 0.9;
  atlas.first_order_rank_correlation = 0.4;
  atlas.median_relative_error = 0.3;
  atlas.estimate_seconds = 1;
  atlas.check_seconds = 10;
  atlas.check_passes = 20;
  return atlas;
}

/// Of every read as much from each writer before it, but for chance.
inline analysis::Writers sample_writers(std::size_t reads, std::size_t sequences, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  const auto draw = [&](double about) {
    const double value = about + 0.05 * normal(random);
    return analysis::Estimate{value, {value - 0.02, value + 0.03}};
  };
  analysis::Writers out;
  for (std::size_t r = 0; r < reads; ++r)
    for (std::size_t w = 0; w < reads; ++w)
      out.contribution.push_back(w <= r ? draw(1.0 / static_cast<double>(r + 1)) : analysis::Estimate{});
  out.norm_mass = out.contribution;
  for (std::size_t w = 0; w < reads; ++w) {
    out.mean_contribution.push_back(draw(0.2));
    out.mean_norm_mass.push_back(draw(0.2));
    for (auto* effects : {&out.zero, &out.mean}) {
      analysis::WriterEffect& effect = effects->emplace_back();
      const bool tested = w > 0 || effects == &out.mean;
      effect.delta_nll_sequence.assign(sequences, tested ? 0.1 : std::nan(""));
      if (tested) effect = {effect.delta_nll_sequence, draw(0.3), 0.01, 0.02, 0.9, 0.9};
    }
  }
  out.passes = 2 + static_cast<double>(reads);
  out.seconds = 1;
  return out;
}

inline analysis::ProbeRow sample_row(const model::ReadPlan& plan, const SampleShape& shape, const SampleSlices& slices,
                                     const analysis::ProbeIdentity& identity, std::int64_t step,
                                     std::mt19937_64& random) {
  std::normal_distribution<double> normal;
  const auto sequences = static_cast<std::size_t>(shape.sequences);
  const auto columns = static_cast<std::size_t>(plan.num_columns());
  const double grown = 1 - std::exp(-static_cast<double>(step) / 200);
  analysis::ProbeRow row;
  row.step = step;
  row.intact_nll = 8 - 4 * grown;
  for (std::size_t n = 0; n < sequences; ++n) row.intact_nll_sequence.push_back(row.intact_nll + 0.1 * normal(random));
  row.reference_nll = 8;
  row.margin = 0.01 * (row.reference_nll - row.intact_nll);
  row.alpha_mean.assign(static_cast<std::size_t>(plan.num_routed()) * columns, std::nan(""));
  row.alpha_variance = row.alpha_mean;
  for (std::size_t r = 0; r < static_cast<std::size_t>(plan.num_routed()); ++r) {
    const auto& there = plan.reads[r].columns;
    for (int column : there) {
      row.alpha_mean[r * columns + static_cast<std::size_t>(column)] = 1.0 / static_cast<double>(there.size());
      row.alpha_variance[r * columns + static_cast<std::size_t>(column)] = 0.01 * grown * std::abs(normal(random));
    }
  }
  for (std::size_t s = 0; s < analysis::num_slices; ++s) {
    const double mass = slices.mass(s, grown);
    row.mass.push_back(mass);
    for (std::size_t n = 0; n < sequences; ++n) row.mass_sequence.push_back(mass * (1 + 0.01 * normal(random)));
  }
  // Longer vectors of the embedding; a current source that points away from the rest.
  row.contribution = row.norm_mass = row.mass;
  for (std::size_t s = 0; s < 6; ++s) {
    row.contribution[s] += 0.3 + 0.1 * grown;
    row.contribution[12 + s] -= 0.3 + 0.1 * grown;
    row.norm_mass[s] += 0.1 * row.norm_mass[12 + s];
    row.norm_mass[12 + s] *= 0.9;
  }
  const auto by_sequence = [&](const std::vector<double>& masses) {
    std::vector<double> out;
    for (double mass : masses) out.insert(out.end(), sequences, mass);
    return out;
  };
  row.contribution_sequence = by_sequence(row.contribution);
  row.norm_mass_sequence = by_sequence(row.norm_mass);
  row.contribution_mean = row.norm_mass_mean = row.alpha_mean;
  for (analysis::Ablation ablation : shape.ablations) {
    row.ablations.push_back(sample_effects(ablation, slices, grown, shape, random));
    for (analysis::SetEffect& set : row.ablations.back().sets) {
      set.control.enumerated = true;
      set.control.coverage = set.coverage;
      set.contribution_control = set.control;
    }
    analysis::summarize(row.ablations.back(), identity, row.margin, step);
  }
  row.writers = sample_writers(plan.reads.size(), sequences, static_cast<std::uint64_t>(step));
  row.writers.embedding_part.resize(row.alpha_mean.size());
  for (std::size_t at = 0; at < row.alpha_mean.size(); ++at)
    row.writers.embedding_part[at].value = row.alpha_mean[at] / 3;
  if (shape.atlas) row.atlas = sample_atlas(row.alpha_mean, columns, grown, random);
  row.cost = {.plain = 100, .computed = 1000, .unshared = 2000, .undecided = 1500, .seconds = 10, .plain_seconds = 1};
  return row;
}

/// Effects grow over training; all numbers differ from each other.
inline analysis::AnalysisRecord sample_record(const model::ModelConfig& config, const SampleShape& shape,
                                              std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const SampleSlices slices(random);
  analysis::AnalysisRecord out;
  out.identity.tokens = {shape.sequences, shape.positions,
                         std::vector<std::int32_t>(static_cast<std::size_t>(shape.sequences * shape.positions), 7),
                         "sample"};
  for (std::int64_t i = 0; i < shape.sequences; ++i) out.identity.tokens.documents.push_back(i);
  out.identity.settings.ablations = shape.ablations;
  out.identity.settings.frozen = out.identity.settings.direct = shape.ways;
  out.identity.model_config = config.to_json().dump();
  for (std::size_t s = 0; s < analysis::num_slices; ++s) out.identity.sets.push_back(analysis::slice_name(s));
  const model::ReadPlan plan(config);
  for (std::int64_t step : shape.steps) out.put(sample_row(plan, shape, slices, out.identity, step, random));
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
    snapshot.alpha_std = snapshot.contribution_mean = snapshot.norm_mass_mean = snapshot.alpha_mean;
    for (std::size_t r = 0; r < out.info.reads.size(); ++r) {
      for (int column : plan.reads[r].columns) {
        snapshot.alpha_mean[r * columns + static_cast<std::size_t>(column)] = share(random);
        snapshot.alpha_std[r * columns + static_cast<std::size_t>(column)] = 0.1F * share(random);
        snapshot.contribution_mean[r * columns + static_cast<std::size_t>(column)] = 2 * share(random) - 0.5F;
        snapshot.norm_mass_mean[r * columns + static_cast<std::size_t>(column)] = share(random);
      }
      snapshot.alpha_entropy.push_back(2 * share(random));
    }
    out.snapshots.push_back(std::move(snapshot));
  }
  for (std::int64_t step = 1; step <= losses; ++step)
    out.train.push_back({step, step * 64, 1.0 + 1.0 / static_cast<double>(step), 1e-3, 1.0, 1000.0, 0.064});
  for (std::int64_t step = 0; step <= losses; step += std::max<std::int64_t>(1, losses / 4))
    out.valid.push_back({step, 1.5 - 0.1 * static_cast<double>(step) / static_cast<double>(losses)});
  return out;
}

/// A run with everything that a page can show.
/// The same of a task with a distractor.
inline analysis::AnalysisRecord sample_task(const model::ModelConfig& config, const SampleShape& shape,
                                            std::uint64_t seed) {
  analysis::AnalysisRecord out = sample_record(config, shape, seed);
  out.identity.tokens.answers.assign(static_cast<std::size_t>(shape.sequences), {3, 5});
  out.identity.task = {"sample", std::string(64, 'a'), analysis::Direction::noising};
  double value = 0;
  for (analysis::ProbeRow& row : out.rows) {
    row.intact_metrics = {value + 1, 0.1 + 0.001 * value, 30 - value};
    for (analysis::AblationEffects& effects : row.ablations) {
      for (analysis::SetEffect& set : effects.sets) {
        for (analysis::MetricEffect& metric : set.metrics) {
          value += 0.01;
          metric.delta = {value, {value - 0.5, value + 0.5}};
        }
      }
    }
  }
  return out;
}

inline analysis::StudyRun sample_run(const std::string& name, const model::ModelConfig& config,
                                     const SampleShape& shape, std::uint64_t seed, std::int64_t snapshots,
                                     std::int64_t losses) {
  analysis::StudyRun run;
  run.name = name;
  run.seed = static_cast<std::int64_t>(seed);
  run.routing = sample_routing(config, snapshots, losses);
  run.trained_steps = losses;
  run.tokens_seen = losses * 64;
  run.train_loss = run.routing.train.back().loss;
  run.valid_loss = 1.5;
  run.checkpoints = shape.steps.size();
  run.record = sample_record(config, shape, seed);
  run.tasks = {sample_task(config, shape, seed + 100)};
  return run;
}

/// The probe of a wrapped model with the same columns.
inline analysis::StudyBaseline sample_baseline(const model::ModelConfig& config, SampleShape shape) {
  shape.steps = {0};
  shape.atlas = false;
  analysis::StudyBaseline out{"wrapped", sample_record(config, shape, 77), {}};
  analysis::ProbeRow& row = out.record.rows.back();
  row.closed_form_error = 1e-7;
  for (double& variance : row.alpha_variance) variance *= 0;  // NaN stays NaN
  return out;
}

/// Runs of 6 layers and three probed steps, with two ablations and an atlas.
/// `parts`: with keys and values, and frozen and direct effects.
inline analysis::Study sample_study(std::size_t runs = 1, bool baseline = false, const std::string& name = "run",
                                    bool parts = false) {
  const model::ModelConfig config = micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum);
  SampleShape shape;
  shape.steps = {0, 10, 40};
  shape.ablations = {analysis::Ablation::mask, analysis::Ablation::freeze};
  if (parts) shape.ablations = {analysis::Ablation::mean, analysis::Ablation::mean_key, analysis::Ablation::mean_both};
  shape.ways = parts;
  std::vector<analysis::StudyRun> all;
  for (std::size_t i = 1; i <= runs; ++i)
    all.push_back(sample_run(runs == 1 ? name : name + "-" + std::to_string(i), config, shape, i, 5, 40));
  std::vector<analysis::StudyBaseline> baselines;
  if (baseline) baselines.push_back(sample_baseline(config, shape));
  return analysis::make_study(std::move(all), std::move(baselines));
}

inline model::ModelConfig sample_config() {
  return micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum);
}

/// A text in which every token is routed otherwise.
inline analysis::RoutedText sample_text(const model::ModelConfig& config, std::int64_t sequences,
                                        std::int64_t positions) {
  const model::ReadPlan plan(config);
  const auto reads = static_cast<std::size_t>(plan.num_routed()),
             columns = static_cast<std::size_t>(plan.num_columns());
  const auto tokens = static_cast<std::size_t>(sequences * positions);
  analysis::RoutedText out;
  out.step = 40;
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
