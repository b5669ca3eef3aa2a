// Controls are measured as the ablations they are, each draw on its sequences, and their spread is the error of a draw.
#include "analysis/probe/jobs.h"

#include <gtest/gtest.h>

#include <cmath>

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

/// [sequence] the effect of a control, by a pass of its own.
std::vector<double> effect_of(const model::Model& model, const ProbeTokens& tokens, Ablation ablation,
                              std::span<const GatedRoute> routes) {
  model::Pass pass(model, tokens.sequences, tokens.positions, model::Pass::Kind::infer);
  const std::vector<std::int32_t> targets = next_tokens(tokens.ids, tokens.positions);
  std::vector<float> intact(targets.size()), changed(targets.size());
  pass.forward(tokens.ids);
  pass.nll(targets, intact);
  const PreparedAblation control = prepare_ablation(model, ablation, routes, {}, {});
  pass.forward(tokens.ids, &control.intervention);
  pass.nll(targets, changed);
  std::vector<double> out(static_cast<std::size_t>(tokens.sequences), 0.0);
  for (std::size_t i = 0; i < targets.size(); ++i)
    out[i / static_cast<std::size_t>(tokens.positions)] +=
        (static_cast<double>(changed[i]) - intact[i]) / static_cast<double>(tokens.positions - 1);
  return out;
}

TEST(Controls, AreTheAblationOfTheirDrawsEachOnItsSequences) {
  const model::Model model = block_sum_model();
  const ProbeTokens tokens = testing::micro_tokens(6, 8);
  std::size_t enumerated = 0, drawn = 0;
  for (Ablation ablation : {Ablation::mask, Ablation::zero}) {
    const ProbeSettings settings{.seed = 6, .ablations = {ablation}, .controls = 6};
    const DrawGroups groups(settings, tokens.sequences);
    EXPECT_EQ(groups.groups, 3);
    EXPECT_EQ(groups.size, 2);
    const ProbeRow row = probe_of(model, tokens, settings);
    const std::vector<RouteSet> sets = slice_sets(model.plan());
    for (std::size_t s : {3, 10, 13, 17}) {
      for (Matched matched : {Matched::alpha, Matched::contribution}) {
        const bool by_alpha = matched == Matched::alpha;
        const SetEffect& set = row.ablations.front().sets[s];
        const ControlEffect& found = by_alpha ? set.control : set.contribution_control;
        const Controls controls =
            make_controls(model.plan(), ablation, sets[s], by_alpha ? row.alpha_mean : row.contribution_mean, 6,
                          static_cast<int>(s), matched, 6);
        EXPECT_EQ(found.coverage, controls.coverage);
        EXPECT_EQ(found.enumerated, controls.enumerated);
        (controls.enumerated ? enumerated : drawn) += 1;
        if (!(controls.coverage > 0)) continue;
        std::vector<double> expected(6, 0.0);
        for (std::size_t draw = 0; draw < controls.draws.size(); ++draw) {
          const std::vector<double> effect = effect_of(model, tokens, ablation, controls.draws[draw].routes);
          for (std::size_t q = 0; q < 6; ++q) {
            const bool mine =
                controls.enumerated || static_cast<std::int64_t>(draw) % 3 == groups.of(static_cast<std::int64_t>(q));
            if (mine) expected[q] += effect[q] * (controls.enumerated ? controls.draws[draw].weight : 0.5);
          }
        }
        for (std::size_t q = 0; q < 6; ++q)
          EXPECT_NEAR(found.delta_nll_sequence[q], expected[q], 1e-6) << sets[s].name << " " << q;
        EXPECT_NEAR(found.excess.value, set.delta_nll.value - found.delta_nll, 1e-12);
        EXPECT_EQ(found.draw_error == 0, controls.enumerated);
      }
    }
  }
  EXPECT_GT(enumerated, 0U);
  EXPECT_GT(drawn, 0U);
}

TEST(DrawError, IsTheSpreadOfDrawsThatTheSameSequencesSaw) {
  ProbeSettings settings;
  settings.controls = 4;
  const DrawGroups groups(settings, 4);  // 2 groups of 2 sequences, of 2 draws each
  ASSERT_EQ(groups.groups, 2);
  ASSERT_EQ(groups.per_sequence(), 4U);
  // Means of draws: 1 and 3 in the first group, 10 and 14 in the second, whose sequences are others.
  const std::vector<double> values = {0, 2, nan, nan, 2, 4, nan, nan, 10, 13, nan, nan, 10, 15, nan, nan};
  const DrawError error = draw_error(values, groups, 4);
  EXPECT_EQ(error.freedom, 2);
  EXPECT_DOUBLE_EQ(error.error, std::sqrt((2.0 + 8.0) / 2 / 4));
  settings.controls = 1;
  EXPECT_EQ(draw_error(std::vector<double>(16, 1.0), DrawGroups(settings, 4), 4).freedom, 3);
  EXPECT_EQ(draw_error(std::vector<double>{1, nan, nan, nan}, DrawGroups(settings, 1), 1).freedom, 0);
}

}  // namespace
}  // namespace routescope::analysis
