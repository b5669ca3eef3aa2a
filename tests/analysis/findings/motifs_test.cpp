// The motifs that are planted in a record are found over its steps, with their onsets, in one run and over several.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "analysis/findings/findings.h"
#include "analysis/routes/ablation.h"
#include "data/base/error.h"
#include "tests/analysis/findings/findings_case.h"

namespace routescope::analysis {
namespace {

using testing::findings_plan;
using testing::findings_sequences;
using testing::motif_named;
using testing::Planted;
using testing::planted_record;
using testing::slice_index;

void expect_within(const Estimate& estimate, double truth, const char* what) {
  EXPECT_LE(estimate.ci.lower, truth) << what;
  EXPECT_GE(estimate.ci.upper, truth) << what;
}

const std::vector<std::int64_t> log_steps = {0, 1, 4, 16, 64, 256, 512, 1000};

TEST(Findings, MotifsOfThePaperAndWhatElseExceedsItsControl) {
  const int other = testing::slice_index("history.mlp.mid"), matched = testing::slice_index("history.mlp.late");
  const auto planted = [&](std::size_t row, int s) {
    const bool risen = log_steps[row] >= 64;
    if (s == testing::slice_index("embedding.mlp.early"))
      return Planted{risen ? 0.3 : 0.0, 0, log_steps[row] >= 4 ? 0.8 : 0.4};
    if (row == 0) return Planted{0, 0, 0.2};
    if (s == testing::slice_index("current.attn.early")) return Planted{0.2, 0.1, 0.3};
    if (s == testing::slice_index("current.mlp.early")) return Planted{risen ? 0.35 : 0.05, 0.01, 0.5};
    if (s == other) return Planted{0.1, 0.02, 0.2};
    if (s == matched) return Planted{0.1, 0.1, 0.2};  // it matters as much as any other mass
    return Planted{0, 0, 0.2};
  };
  const Findings found = find(testing::planted_record(log_steps, 0.01, 3, planted));
  ASSERT_EQ(found.motifs.size(), 4U);
  const char* names[] = {"embedding_early_mlp", "current_early", "history_late_attn", "history.mlp.mid"};
  for (std::size_t m = 0; m < 4; ++m) {
    EXPECT_EQ(found.motifs[m].name, names[m]);
    EXPECT_EQ(found.motifs[m].of_paper, m < 3);
  }
  EXPECT_EQ(found.motifs[3].slices, std::vector<int>{other});

  // By hand: 0.mlp and 1.mlp see 2 sources; 0.attn one, which is not its current state; 4.attn 3, 5.attn 4, of which
  // history 1 and 2.
  EXPECT_DOUBLE_EQ(found.motifs[0].uniform_mass, 0.5);
  EXPECT_DOUBLE_EQ(found.motifs[1].uniform_mass, (0.25 + 0.5) / 2);
  EXPECT_DOUBLE_EQ(found.motifs[2].uniform_mass, (1.0 / 3 + 0.5) / 2);

  const Motif& embedding = found.motifs[0];
  EXPECT_EQ(embedding.shown_from, 64);
  EXPECT_LT(embedding.tests.back().localised, 1e-6);  // the current state's own motif is left out
  EXPECT_LT(embedding.tests.back().excess, 1e-6);
  EXPECT_LT(embedding.tests.back().change, 1e-6);
  ASSERT_EQ(embedding.effect.size(), log_steps.size());
  expect_within(embedding.effect.back(), 0.3, "effect");
  EXPECT_NEAR(embedding.mass.back().value, 0.8, 1e-3);

  const Motif& current = found.motifs[1];  // its mass is not above uniform
  expect_within(current.effect.back(), 0.55, "sum of effects");
  expect_within(current.control.back(), 0.11, "sum of controls");
  expect_within(current.excess.back(), 0.44, "excess");
  expect_within(current.change.back(), 0.44, "change");
  EXPECT_NEAR(current.mass.back().value, 0.4, 1e-3);
  // At least half of 0.44 from step 64 on: between 16, with 0.14, and 64 a line is at 0.22 after a quarter of the way.
  EXPECT_NEAR(current.onset.value, 16 + 48 * (0.22 - 0.14) / (0.44 - 0.14), 2);
  EXPECT_LE(current.onset.ci.lower, 16);
  EXPECT_GE(current.onset.ci.upper, 64);
  EXPECT_EQ(current.shown_from, 1);
  EXPECT_EQ(current.tests.front().change, 1);

  const Motif& history = found.motifs[2];
  EXPECT_TRUE(std::isnan(history.onset.value));
  EXPECT_TRUE(std::isnan(history.onset.ci.lower));
  EXPECT_TRUE(std::isnan(history.shown_from));
  EXPECT_TRUE(std::isnan(history.mass_onset.value));  // 0.2 is below uniform
  EXPECT_TRUE(std::isnan(history.lead.value));
}

TEST(Findings, AnOnsetLiesBetweenRowsWhateverTheGrid) {
  // The embedding's excess rises along a line from step 100 to step 1100: it is half there at 600.
  const auto onset_on = [&](const std::vector<std::int64_t>& steps) {
    return find(testing::planted_record(steps, 0.001, 37,
                                        [&](std::size_t row, int s) {
                                          const double way =
                                              std::clamp((static_cast<double>(steps[row]) - 100) / 1000, 0.0, 1.0);
                                          return Planted{s == 3 ? 0.4 * way : 0.0, 0, 0.2};
                                        }))
        .motifs[0]
        .onset;
  };
  for (const std::vector<std::int64_t>& steps :
       {std::vector<std::int64_t>{0, 100, 300, 500, 700, 900, 1100, 1300},
        std::vector<std::int64_t>{0, 50, 550, 1050, 1550}, std::vector<std::int64_t>{0, 400, 800, 1600}}) {
    const Estimate onset = onset_on(steps);
    EXPECT_NEAR(onset.value, 600, 60);
    const auto after = std::upper_bound(steps.begin(), steps.end(), 600);
    EXPECT_LE(onset.ci.lower, static_cast<double>(*(after - 1)));
    EXPECT_GE(onset.ci.upper, static_cast<double>(*after));
  }
}

TEST(Findings, MassIsMeasuredFromWhereTrainingStarts) {
  AnalysisRecord record = testing::planted_record({0, 1}, 0.001, 16, [](std::size_t, int) {
    return Planted{0, 0, 0.3};
  });
  model::ModelConfig config = testing::micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum);
  config.recency_bias = std::log(3.0);  // of 2 sources the current one has 3/4, of 4 a half
  record.identity.model_config = config.to_json().dump();
  const Findings found = find(record);
  EXPECT_NEAR(found.motifs[0].uniform_mass, 0.25, 1e-12);
  EXPECT_NEAR(found.motifs[1].uniform_mass, (0.75 / 2 + 0.75) / 2, 1e-12);
  EXPECT_EQ(found.motifs[0].mass_onset.value, 0);  // 0.3 is above 1/4, though not above a half
}

TEST(Findings, WithoutControlsThereIsNoExcessAndNoOnset) {
  AnalysisRecord record = testing::planted_record({0, 1}, 0.01, 4, [](std::size_t, int) {
    return Planted{0.3, 0, 0.6};
  });
  for (ProbeRow& row : record.rows) {
    for (SetEffect& set : row.ablations.front().sets) set.control = set.contribution_control = {};
  }
  const Findings found = find(record);
  ASSERT_EQ(found.motifs.size(), 3U);
  EXPECT_NEAR(found.motifs[0].effect[1].value, 0.3, 0.02);
  EXPECT_TRUE(std::isnan(found.motifs[0].excess[1].value));
  EXPECT_TRUE(std::isnan(found.motifs[0].onset.value));
  EXPECT_EQ(found.motifs[0].mass_onset.value, 0);
}

TEST(Findings, ASetDecidedEarlyCountsByItsOwnSequences) {
  const int early = testing::slice_index("embedding.mlp.early");
  AnalysisRecord record = testing::planted_record({5}, 0.05, 50, [&](std::size_t, int) {
    return Planted{0.3, 0.1, 0.6};
  });
  SetEffect& set = record.rows[1].ablations.front().sets[static_cast<std::size_t>(early)];
  double sum = 0;
  constexpr int used = 16;
  for (std::size_t i = 0; i < testing::findings_sequences; ++i) {
    if (i < used) {
      sum += set.delta_nll_sequence[i] - set.control.delta_nll_sequence[i];
    } else {
      set.delta_nll_sequence[i] = set.control.delta_nll_sequence[i] = nan;
    }
  }
  const Findings broken = find(record);  // without until_decided a missing value is the model's
  EXPECT_TRUE(std::isnan(broken.motifs[0].excess[1].value));
  EXPECT_TRUE(std::isnan(broken.motifs[0].excess[1].ci.lower));
  record.identity.settings.until_decided = true;
  const Findings found = find(record);
  EXPECT_NEAR(found.motifs[0].excess[1].value, sum / used, 1e-12);
  EXPECT_TRUE(std::isnan(found.motifs[0].shown_from));  // tests of a fixed number of sequences
  EXPECT_TRUE(std::isnan(found.dissociation[1].contests[0].p));
  expect_within(found.motifs[0].excess[1], 0.2, "excess");
}

Planted rising(std::size_t row, int slice, double scale) {
  const bool motif = slice == testing::slice_index("embedding.mlp.early");
  return {motif && log_steps[row] >= 64 ? scale * 0.3 : 0.0, 0, 0.6};
}

TEST(Findings, IdenticalRunsPooledAreOne) {
  const AnalysisRecord one =
      testing::planted_record(log_steps, 0.1, 9, [](std::size_t row, int s) { return rising(row, s, 1); });
  const Findings alone = find(one), pooled = pool(std::vector<AnalysisRecord>{one, one, one});
  EXPECT_EQ(pooled.runs, 3);
  ASSERT_EQ(pooled.motifs.size(), alone.motifs.size());
  for (std::size_t m = 0; m < alone.motifs.size(); ++m) {
    const Motif &a = alone.motifs[m], &b = pooled.motifs[m];
    EXPECT_EQ(a.name, b.name);
    for (std::size_t row = 0; row < log_steps.size(); ++row) {
      EXPECT_NEAR(a.excess[row].value, b.excess[row].value, 1e-12);
      // Runs add no error: Student's interval over documents, beside percentiles of 2000 resamples.
      const double width = a.excess[row].ci.upper - a.excess[row].ci.lower;
      EXPECT_NEAR(b.excess[row].ci.upper - b.excess[row].ci.lower, width, 0.2 * width);
    }
  }
  EXPECT_EQ(pooled.dissociation.back().of(MassKind::alpha).idle, alone.dissociation.back().of(MassKind::alpha).idle);
  EXPECT_EQ(pooled.content.back().mean_share, alone.content.back().mean_share);
}

TEST(Findings, RunsThatDifferWidenTheIntervalToStudents) {
  std::vector<AnalysisRecord> runs;
  for (double scale : {1.0, 2.0, 6.0})  // of 0.3 nats a token
    runs.push_back(
        testing::planted_record(log_steps, 1e-5, 10, [&](std::size_t row, int s) { return rising(row, s, scale); }));
  runs[1].rows.erase(runs[1].rows.begin() + 2);
  const Findings pooled = pool(runs);
  EXPECT_EQ(pooled.step, (std::vector<std::int64_t>{0, 1, 16, 64, 256, 512, 1000}));
  const Estimate& effect = pooled.motifs[0].effect.back();
  EXPECT_NEAR(effect.value, 0.9, 1e-4);
  // Mean 3, standard error sqrt(7 / 3) in units of 0.3.
  const double half = student_t_quantile(0.975, 2) * 0.3 * std::sqrt(7.0 / 3);
  EXPECT_NEAR(effect.ci.lower, 0.9 - half, 1e-3);
  EXPECT_NEAR(effect.ci.upper, 0.9 + half, 1e-3);
  EXPECT_TRUE(std::isnan(pooled.motifs[0].onset.value));  // 3 such runs do not show that others have the motif
}

TEST(Findings, RunsThatAgreeHaveAnOnset) {
  std::vector<AnalysisRecord> runs;
  for (std::uint64_t seed : {11U, 12U, 13U})
    runs.push_back(testing::planted_record(log_steps, 0.1, seed, [&](std::size_t row, int s) {
      return rising(row, s, 1 + 0.1 * (static_cast<double>(seed) - 12));
    }));
  const Findings found = pool(runs);
  const Motif& motif = *testing::motif_named(found, "embedding_early_mlp");
  EXPECT_NEAR(motif.onset.value, 40, 3);  // half way from 16 to 64
  expect_within(motif.onset, 16, "the row before");
  expect_within(motif.onset, 64, "the row of the rise");
}

}  // namespace
}  // namespace routescope::analysis
