// Prompts whose answers are scored: against plain loops over logits, and without regard to padding.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "analysis/probe/atlas.h"
#include "analysis/probe/cuts.h"
#include "analysis/probe/probe.h"
#include "model/pass/pass.h"
#include "tests/analysis/probe/micro_model.h"
#include "tests/analysis/probe/probe_of.h"

namespace routescope::testing {
namespace {

constexpr std::int64_t prompts = 9, vocab = 37;
const std::vector<std::string> set_names{"3.attn:history", "2.mlp:embedding"};

/// Prompts of 4 to 12 tokens with their answers, then `padding` tokens of `filler` or more.
analysis::ProbeTokens micro_prompts(std::int64_t padding = 0, std::int32_t filler = 0, std::uint64_t seed = 13) {
  analysis::ProbeTokens tokens = micro_tokens(prompts, 13 + padding, seed);
  const analysis::ProbeTokens drawn = micro_tokens(prompts, 13, seed);
  for (std::int64_t q = 0; q < prompts; ++q) {
    const std::int64_t length = 4 + q;
    tokens.documents.push_back(q);
    tokens.answers.push_back({length - 1, static_cast<std::int32_t>((7 * q + 3) % vocab)});
    for (std::int64_t t = 0; t < tokens.positions; ++t)
      tokens.ids[static_cast<std::size_t>(q * tokens.positions + t)] =
          t <= length ? drawn.ids[static_cast<std::size_t>(q * 13 + t)] : filler;
  }
  return tokens;
}

model::Model some_model() {
  return micro_model(micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum));
}

/// Of one prompt alone, without padding: nll of its answer, then the metrics.
std::vector<double> plain_values(const model::Model& model, const analysis::ProbeTokens& tokens, std::int64_t q,
                                 const model::RoutingIntervention* intervention) {
  const analysis::Answer& answer = tokens.answers[static_cast<std::size_t>(q)];
  const std::int64_t length = answer.position + 1;
  const auto first = tokens.ids.begin() + q * tokens.positions;
  const std::vector<std::int32_t> ids(first, first + length);
  model::Pass pass(model, 1, length, model::Pass::Kind::infer);
  pass.forward(ids, intervention);
  const kernels::OwnedTensor out(model.options().activations(), model.options().device, {length, vocab});
  pass.logits(0, length, out.tensor);
  const std::vector<double> all = kernels::host_values<double>(out.tensor, pass.stream());
  const std::vector<double> logits(all.end() - vocab, all.end());
  const auto own = static_cast<std::size_t>(first[length]);
  double sum = 0, rank = 0;
  for (std::size_t id = 0; id < logits.size(); ++id) {
    sum += std::exp(logits[id]);
    if (id != own) rank += logits[id] > logits[own] ? 1 : logits[id] == logits[own] ? 0.5 : 0;
  }
  return {std::log(sum) - logits[own], logits[own] - logits[static_cast<std::size_t>(answer.distractor)],
          std::exp(logits[own]) / sum, rank};
}

TEST(Prompts, AreScoredAsPlainLoopsOverLogitsSay) {
  const model::Model model = some_model();
  const analysis::ProbeTokens tokens = micro_prompts(3);
  const analysis::ProbeRow row = probe_of(model, tokens, {.sets = set_names});
  const std::vector<analysis::RouteSet> sets = analysis::route_sets(set_names, model.plan());
  constexpr double tolerance = 1e-4;  // f32 logits of size 10, some 10 sums of them
  double mean_probability = 0;
  for (std::int64_t q = 0; q < prompts; ++q) {
    const auto at = static_cast<std::size_t>(q);
    const std::vector<double> intact = plain_values(model, tokens, q, nullptr);
    EXPECT_NEAR(row.intact_nll_sequence[at], intact[0], tolerance);
    for (std::size_t m = 0; m < analysis::num_metrics; ++m)
      EXPECT_NEAR(row.intact_metrics_sequence[m][at], intact[1 + m], tolerance) << analysis::metric_names[m];
    mean_probability += intact[2] / prompts;
    for (std::size_t s = 0; s < sets.size(); ++s) {
      const analysis::PreparedAblation cut = analysis::prepare_ablation(
          model, analysis::Ablation::mask, analysis::whole(sets[s]), {}, {0, 1, tokens.length(q)});
      const std::vector<double> changed = plain_values(model, tokens, q, &cut.intervention);
      const analysis::SetEffect& effect = row.effects(analysis::Ablation::mask).sets[s];
      EXPECT_NEAR(effect.delta_nll_sequence[at], changed[0] - intact[0], tolerance);
      for (std::size_t m = 0; m < analysis::num_metrics; ++m)
        EXPECT_NEAR(effect.metrics[m].delta_sequence[at], changed[1 + m] - intact[1 + m], tolerance);
    }
  }
  EXPECT_NEAR(row.intact_metrics[1], mean_probability, tolerance);
  const analysis::SetEffect& effect = row.effects(analysis::Ablation::mask).sets[0];
  for (const analysis::MetricEffect& metric : effect.metrics) {
    EXPECT_NEAR(metric.delta.value, analysis::mean(metric.delta_sequence), 1e-12);
    EXPECT_LE(metric.delta.ci.lower, metric.delta.value);
    EXPECT_GE(metric.delta.ci.upper, metric.delta.value);
    EXPECT_LT(metric.delta.ci.lower, metric.delta.ci.upper);
  }
}

TEST(Prompts, MetricsCountTiesAsHalvesAndLackNoDistractor) {
  const std::vector<double> logits{1, 3, 3, 3, 5};
  const analysis::MetricValues values = analysis::metrics_of(logits, 2, -1);
  EXPECT_TRUE(std::isnan(values[0]));
  EXPECT_NEAR(values[1], std::exp(3) / (std::exp(1) + 3 * std::exp(3) + std::exp(5)), 1e-12);
  EXPECT_EQ(values[2], 2.0);  // one is larger, two are equal
  EXPECT_EQ(analysis::metrics_of(logits, 4, 0)[0], 4.0);
  EXPECT_EQ(analysis::metrics_of(logits, 4, 0)[2], 0.0);
}

void expect_alike(const std::vector<double>& found, const std::vector<double>& expected, const char* what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (std::isnan(expected[i])) {
      EXPECT_TRUE(std::isnan(found[i])) << what << " " << i;
    } else {
      EXPECT_NEAR(found[i], expected[i], 1e-5) << what << " " << i;  // products of other sizes round otherwise in f32
    }
  }
}

TEST(Prompts, PaddingChangesNothing) {
  const model::Model model = some_model();
  const analysis::ProbeSettings settings{.ablations = {analysis::Ablation::mask, analysis::Ablation::mean,
                                                       analysis::Ablation::resample, analysis::Ablation::freeze},
                                         .controls = 1,
                                         .atlas_checks = 4};
  const auto row_of = [&](const analysis::ProbeTokens& tokens) {
    const analysis::ProbeIdentity identity = analysis::identify(model.config(), tokens, settings);
    analysis::ProbeRow row = analysis::probe(model, identity);
    row.atlas = analysis::make_atlas(model, identity, 0, *kernels::single_communicator());
    return row;
  };
  const analysis::ProbeRow bare = row_of(micro_prompts()), padded = row_of(micro_prompts(7, 5));
  expect_alike(padded.intact_nll_sequence, bare.intact_nll_sequence, "nll");
  expect_alike(padded.mass_sequence, bare.mass_sequence, "mass of sequences");
  expect_alike(padded.mass, bare.mass, "mass");
  expect_alike(padded.contribution, bare.contribution, "contribution");
  expect_alike(padded.alpha_variance, bare.alpha_variance, "variance");
  for (std::size_t a = 0; a < settings.ablations.size(); ++a) {
    for (std::size_t s = 0; s < bare.ablations[a].sets.size(); ++s) {
      const analysis::SetEffect &found = padded.ablations[a].sets[s], &expected = bare.ablations[a].sets[s];
      expect_alike(found.delta_nll_sequence, expected.delta_nll_sequence, "effect");
      expect_alike(found.control.delta_nll_sequence, expected.control.delta_nll_sequence, "control");
      expect_alike({found.kl, found.top1_agreement}, {expected.kl, expected.top1_agreement}, "comparison");
      for (std::size_t m = 0; m < analysis::num_metrics; ++m)
        expect_alike(found.metrics[m].delta_sequence, expected.metrics[m].delta_sequence, analysis::metric_names[m]);
    }
  }
  for (std::size_t i = 0; i < bare.atlas.checked.size(); ++i)
    EXPECT_NEAR(padded.atlas.checked[i].true_effect.value, bare.atlas.checked[i].true_effect.value, 1e-5);
  for (std::size_t i = 0; i < bare.atlas.first_order.size(); ++i)
    expect_alike({padded.atlas.first_order[i].value, padded.atlas.estimate[i].value},
                 {bare.atlas.first_order[i].value, bare.atlas.estimate[i].value}, "estimates");
}

TEST(Prompts, AreCutAsTheyAreProbed) {
  const model::Model model = some_model();
  const analysis::ProbeTokens tokens = micro_prompts(2);
  const std::vector<analysis::RouteSet> sets = analysis::route_sets(set_names, model.plan());
  const analysis::ProbeRow row = probe_of(model, tokens, {.sets = set_names});
  std::vector<analysis::Cut> cuts;
  for (const analysis::RouteSet& set : sets) cuts.push_back({analysis::Ablation::mask, analysis::whole(set)});
  const auto alone = kernels::single_communicator();
  analysis::SharedBatches batches(model, tokens, analysis::default_batch_bytes, *alone);
  const auto values = analysis::measure_cuts(batches, {model, tokens, {}}, cuts, "cuts of prompts");
  for (std::size_t q = 0; q < values.size(); ++q) {
    EXPECT_EQ(values[q][0], row.intact_nll_sequence[q]);
    for (std::size_t s = 0; s < sets.size(); ++s)
      EXPECT_EQ(values[q][1 + s], row.effects(analysis::Ablation::mask).sets[s].delta_nll_sequence[q]);
  }
}

TEST(Prompts, ClassesHoldAnswersAlone) {
  const analysis::ProbeTokens tokens = micro_prompts(2);
  const auto classes = analysis::token_classes(tokens, {.by_repeat = true});
  for (std::int64_t q = 0; q < prompts; ++q) {
    for (std::int64_t t = 1; t < tokens.positions; ++t) {
      const int label = classes[0].of_token[static_cast<std::size_t>(q * (tokens.positions - 1) + t - 1)];
      EXPECT_EQ(label >= 0, t == tokens.length(q));
    }
  }
}

}  // namespace
}  // namespace routescope::testing
