// Controls are measured as the ablations they are, each draw on the sequences of its document.
#include "analysis/probe/jobs.h"

#include <gtest/gtest.h>

#include <cmath>

#include "analysis/probe/intact.h"
#include "analysis/probe/probe.h"
#include "model/pass/pass.h"
#include "tests/analysis/probe/micro_model.h"
#include "tests/analysis/probe/probe_of.h"

namespace routescope::analysis {
namespace {

using testing::probe_of;

model::Model block_sum_model() {
  return testing::micro_model(testing::micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum));
}

/// What ablations refer to, measured by the code that the probe uses.
Reference reference_of(const model::Model& model, const ProbeTokens& tokens, const ProbeRow& row) {
  const auto alone = kernels::single_communicator();
  SharedBatches batches(model, tokens, default_batch_bytes, *alone);
  Reference reference = measure_intact(model, tokens, true, batches).reference;
  EXPECT_EQ(reference.alpha_mean.size(), row.alpha_mean.size());
  return reference;
}

/// [sequence] the effect of a control, by a pass of its own.
std::vector<double> effect_of(const model::Model& model, const ProbeTokens& tokens, Ablation ablation,
                              std::span<const GatedRoute> routes, const Reference& reference, std::uint64_t seed) {
  model::Pass pass(model, tokens.sequences, tokens.positions, model::Pass::Kind::infer);
  const std::vector<std::int32_t> targets = next_tokens(tokens.ids, tokens.positions);
  std::vector<float> intact(targets.size()), changed(targets.size());
  pass.forward(tokens.ids);
  pass.nll(targets, intact);
  const PreparedAblation control =
      prepare_ablation(model, ablation, routes, reference, {0, tokens.sequences, tokens.positions, seed});
  pass.forward(tokens.ids, &control.intervention);
  pass.nll(targets, changed);
  std::vector<double> out(static_cast<std::size_t>(tokens.sequences), 0.0);
  for (std::size_t i = 0; i < targets.size(); ++i)
    out[i / static_cast<std::size_t>(tokens.positions)] +=
        (static_cast<double>(changed[i]) - intact[i]) / static_cast<double>(tokens.positions - 1);
  return out;
}

TEST(Controls, AreTheAblationOfTheirDrawsEachOnItsDocument) {
  const model::Model model = block_sum_model();
  ProbeTokens tokens = testing::micro_tokens(6, 8);
  tokens.documents = {7, 7, 4, 9, 4, 2};
  const std::vector<std::size_t> document = {0, 0, 1, 2, 1, 3};
  std::size_t enumerated = 0, drawn = 0;
  for (Ablation ablation : {Ablation::mask, Ablation::zero, Ablation::mean, Ablation::resample}) {
    const ProbeSettings settings{.seed = 6, .ablations = {ablation}, .controls = 5};
    const DocumentDraws draws(settings, tokens);
    EXPECT_EQ(draws.document, document);
    EXPECT_EQ(draws.per_document, 5U);
    const ProbeRow row = probe_of(model, tokens, settings);
    const std::vector<RouteSet> sets = slice_sets(model.plan());
    const Reference reference = reference_of(model, tokens, row);
    for (std::size_t s : {3, 10, 13, 17}) {
      for (Matched matched : {Matched::alpha, Matched::contribution}) {
        const bool by_alpha = matched == Matched::alpha;
        const SetEffect& set = row.ablations.front().sets[s];
        const ControlEffect& found = by_alpha ? set.control : set.contribution_control;
        const Controls controls =
            make_controls(model.plan(), ablation, sets[s], by_alpha ? row.alpha_mean : row.contribution_mean, 6,
                          static_cast<int>(s), matched, 4 * 5);
        EXPECT_EQ(found.coverage, controls.coverage);
        EXPECT_EQ(found.enumerated, controls.enumerated);
        (controls.enumerated ? enumerated : drawn) += 1;
        if (!(controls.coverage > 0)) continue;
        std::vector<double> expected(6, 0.0);
        for (std::size_t draw = 0; draw < controls.draws.size(); ++draw) {
          const std::vector<double> effect =
              effect_of(model, tokens, ablation, controls.draws[draw].routes, reference, settings.seed);
          for (std::size_t q = 0; q < 6; ++q) {
            if (controls.enumerated || draw % 4 == document[q])
              expected[q] += effect[q] * (controls.enumerated ? controls.draws[draw].weight : 0.2);
          }
        }
        for (std::size_t q = 0; q < 6; ++q)
          EXPECT_NEAR(found.delta_nll_sequence[q], expected[q], 1e-6) << sets[s].name << " " << q;
        EXPECT_NEAR(found.excess.value, set.delta_nll.value - found.delta_nll, 1e-12);
      }
    }
  }
  EXPECT_GT(enumerated, 0U);
  EXPECT_GT(drawn, 0U);
}

TEST(Controls, AreSixteenAtLeastAndOfEveryDocument) {
  const auto of = [](int controls, std::int64_t sequences, std::vector<std::int64_t> documents) {
    ProbeTokens tokens = testing::micro_tokens(sequences, 4);
    tokens.documents = std::move(documents);
    return DocumentDraws({.controls = controls}, tokens).per_document;
  };
  EXPECT_EQ(of(0, 4, {}), 0U);
  EXPECT_EQ(of(1, 4, {}), 4U);
  EXPECT_EQ(of(1, 4, {1, 1, 1, 1}), 16U);
  EXPECT_EQ(of(1, 16, {}), 1U);
  EXPECT_EQ(of(3, 5, {}), 4U);
  EXPECT_EQ(of(20, 5, {}), 20U);
}

}  // namespace
}  // namespace routescope::analysis
