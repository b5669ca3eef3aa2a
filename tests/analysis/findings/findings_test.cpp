// What is planted in a record is found, with its interval, and what is not there is not.
#include "analysis/findings/findings.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

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

/// The mass of a slice whose reads that masking can change weigh `changed` on average.
double whole_mass(int slice, double changed) {
  const RouteSet set = slice_sets(testing::findings_plan())[static_cast<std::size_t>(slice)];
  const auto reads = changed_reads(testing::findings_plan(), Ablation::mask, whole(set)).size();
  // Of the micro model's reads only 0.attn has a single source, the embedding.
  const double certain = set.name == "embedding.attn.early" ? 1 : 0;
  return (changed * static_cast<double>(reads) + certain) / static_cast<double>(set.reads.size());
}

TEST(Findings, MassThatNoAblationCanTouchDoesNotCount) {
  // 0.attn has one source, whose weight is 1; 1.attn has two, of which the embedding has a tenth.
  const int certain = testing::slice_index("embedding.attn.early"), heavy = testing::slice_index("embedding.mlp.mid");
  const auto planted = [&](std::size_t, int s) {
    return Planted{s == heavy ? 0.5 : 0.0, 0, s == certain ? 0.55 : s == heavy ? 0.5 : 0.02};
  };
  AnalysisRecord record = testing::planted_record({10}, 0.001, 15, planted);
  record.rows[0].mass[static_cast<std::size_t>(certain)] = 0.54;  // less than a tenth of what can be changed
  Dissociation found = find(record).dissociation.at(0);
  EXPECT_EQ(found.largest_mass, heavy);
  EXPECT_EQ(found.p_largest, 1);
  EXPECT_TRUE(found.idle.empty());
  record.rows[0].ablations[0].ablation = Ablation::zero;  // which can take that weight
  found = find(record).dissociation.at(0);
  EXPECT_EQ(found.largest_mass, certain);
  EXPECT_LT(found.p_largest, 1e-9);
  EXPECT_EQ(found.idle, std::vector<int>{certain});
}

TEST(Findings, MassThatDoesNothingIsToldFromMassThatDoes) {
  const int heavy = testing::slice_index("history.mlp.mid"), strong = testing::slice_index("current.mlp.late");
  // The others rise in effect as they fall in mass.
  const auto planted = [&](std::size_t, int s) {
    if (s == heavy) return Planted{0, 0, whole_mass(s, 0.7)};
    if (s == strong) return Planted{0.5, 0, whole_mass(s, 0.01)};
    return Planted{0.02 * (s + 1), 0, whole_mass(s, 0.09 - 0.004 * s)};
  };
  const AnalysisRecord record = testing::planted_record({10}, 0.001, 1, planted);
  const Dissociation found = find(record).dissociation.at(0);
  EXPECT_EQ(found.largest_mass, heavy);
  EXPECT_EQ(found.largest_effect, strong);
  EXPECT_EQ(found.p_same, 0);
  EXPECT_LT(found.p_largest, 1e-9);
  EXPECT_EQ(found.idle, std::vector<int>{heavy});
  EXPECT_DOUBLE_EQ(found.rank_correlation.value, -1);
  EXPECT_DOUBLE_EQ(found.rank_correlation.ci.lower, -1);
  EXPECT_LT(found.rank_correlation.ci.upper, -0.97);
}

TEST(Findings, AgreementOfMassAndEffectIsNotDenied) {
  const int largest = testing::slice_index("embedding.attn.mid"), untested = testing::slice_index("current.attn.early");
  const auto planted = [&](std::size_t, int s) {
    if (s == untested) return Planted{nan, 0, 0.9};
    const double size = s == largest ? 0.8 : 0.02 * s;
    return Planted{size, 0, whole_mass(s, size)};
  };
  const Dissociation found = find(testing::planted_record({10}, 0.001, 2, planted)).dissociation.at(0);
  EXPECT_EQ(found.largest_mass, largest);
  EXPECT_EQ(found.largest_effect, largest);
  EXPECT_EQ(found.p_same, 1);
  EXPECT_EQ(found.p_largest, 1);
  EXPECT_GT(found.rank_correlation.ci.lower, 0.97);
  EXPECT_TRUE(found.idle.empty());
}

TEST(Findings, EqualSlicesAreOftenSaidToBeTheSameAndNeverWithASmallPValue) {
  // The heaviest slice and another matter alike: how often they are "the same" is a coin's.
  const int heavy = testing::slice_index("history.mlp.mid"), equal = testing::slice_index("current.mlp.late");
  int rejected = 0;
  constexpr int repetitions = 20;
  for (int repetition = 0; repetition < repetitions; ++repetition) {
    const auto planted = [&](std::size_t, int s) {
      return Planted{s == heavy || s == equal ? 0.5 : 0.0, 0, s == heavy ? 0.7 : 0.1};
    };
    const Dissociation found =
        find(testing::planted_record({1}, 0.1, 100 + static_cast<std::uint64_t>(repetition), planted))
            .dissociation.at(0);
    EXPECT_TRUE(found.largest_effect == heavy || found.largest_effect == equal);
    EXPECT_GT(found.p_same, 0);
    rejected += found.p_largest < 0.05;
  }
  // 5 % and three standard deviations; Bonferroni leaves 0.3 %.
  EXPECT_LE(rejected, 0.05 * repetitions + 3 * std::sqrt(0.05 * 0.95 * repetitions));
}

const std::vector<std::int64_t> log_steps = {0, 1, 4, 16, 64, 256, 512, 1000};

TEST(Findings, MotifsOfThePaperAndWhatElseExceedsItsControl) {
  const int other = testing::slice_index("history.mlp.mid"), matched = testing::slice_index("history.mlp.late");
  const auto planted = [&](std::size_t row, int s) {
    const bool risen = log_steps[row] >= 64;
    if (s == testing::slice_index("embedding.mlp.early"))
      return Planted{risen ? 0.3 : -0.05, 0, log_steps[row] >= 4 ? 0.8 : 0.4};
    if (s == testing::slice_index("current.attn.early")) return Planted{0.2, 0.1, 0.3};
    if (s == testing::slice_index("current.mlp.early")) return Planted{0.05, 0.01, 0.5};
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
  EXPECT_EQ(embedding.onset.value, 64);
  EXPECT_EQ(embedding.onset.ci.lower, 64);
  EXPECT_EQ(embedding.onset.ci.upper, 64);
  EXPECT_EQ(embedding.mass_onset.value, 4);
  EXPECT_DOUBLE_EQ(embedding.lead.value, std::log(65.0 / 5));  // mass leads
  EXPECT_GT(embedding.lead.ci.lower, 0);
  ASSERT_EQ(embedding.effect.size(), log_steps.size());
  expect_within(embedding.effect.back(), 0.3, "effect");
  EXPECT_NEAR(embedding.mass.back().value, 0.8, 1e-3);

  const Motif& current = found.motifs[1];  // there from the start; its mass is not above uniform
  expect_within(current.effect.back(), 0.25, "sum of effects");
  expect_within(current.control.back(), 0.11, "sum of controls");
  expect_within(current.excess.back(), 0.14, "excess");
  EXPECT_NEAR(current.mass.back().value, 0.4, 1e-3);
  EXPECT_EQ(current.onset.value, 0);
  EXPECT_EQ(current.shown_from, 0);

  const Motif& history = found.motifs[2];
  EXPECT_TRUE(std::isnan(history.onset.value));
  EXPECT_TRUE(std::isnan(history.onset.ci.lower));
  EXPECT_TRUE(std::isnan(history.shown_from));
  EXPECT_TRUE(std::isnan(history.mass_onset.value));  // 0.2 is below uniform
  EXPECT_TRUE(std::isnan(history.lead.value));
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
    for (SetEffect& set : row.ablations.front().sets) set.control = {};
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
  AnalysisRecord record = testing::planted_record({5}, 0.05, 5, [&](std::size_t, int) {
    return Planted{0.3, 0.1, 0.6};
  });
  SetEffect& set = record.rows[0].ablations.front().sets[static_cast<std::size_t>(early)];
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
  EXPECT_TRUE(std::isnan(broken.motifs[0].excess[0].value));
  EXPECT_TRUE(std::isnan(broken.motifs[0].excess[0].ci.lower));
  EXPECT_FALSE(std::isnan(broken.dissociation[0].p_largest));
  record.identity.settings.until_decided = true;
  const Findings found = find(record);
  EXPECT_NEAR(found.motifs[0].excess[0].value, sum / used, 1e-12);
  EXPECT_TRUE(std::isnan(found.motifs[0].shown_from));  // tests of a fixed number of sequences
  EXPECT_TRUE(std::isnan(found.dissociation[0].p_largest));
  expect_within(found.motifs[0].excess[0], 0.2, "excess");
  EXPECT_FALSE(std::isnan(found.dissociation[0].rank_correlation.ci.lower));
}

TEST(Findings, ContentIsTheShareOfVarianceBetweenTokens) {
  AnalysisRecord record = testing::planted_record({0}, 0.01, 6, [](std::size_t, int) { return Planted{}; });
  const model::ReadPlan& plan = testing::findings_plan();
  const auto at = [&](int read, int column) { return static_cast<std::size_t>(read * plan.num_columns() + column); };
  // Read 1 (0.mlp) has two sources. Weights 0.8 and 0.2 on average: between sources 0.3^2. Over tokens 0.1^2.
  const std::vector<int>& columns = plan.reads[1].columns;
  ASSERT_EQ(columns.size(), 2U);
  for (ProbeRow& row : record.rows) {
    row.alpha_mean[at(1, columns[0])] = 0.8;
    row.alpha_mean[at(1, columns[1])] = 0.2;
    for (int column : columns) row.alpha_variance[at(1, column)] = 0.01;
  }
  // Read 2 is uniform but for rounding; all others do not vary over tokens.
  for (int column : plan.reads[2].columns) record.rows[0].alpha_variance[at(2, column)] = 1e-15;
  const Content content = find(record).content.at(0);
  EXPECT_TRUE(std::isnan(content.share[0]));
  EXPECT_NEAR(content.share[1], 0.01 / (0.01 + 0.09), 1e-12);
  EXPECT_EQ(content.share[2], 0);
  EXPECT_NEAR(content.mean_share, 0.1 / (plan.num_routed() - 1), 1e-12);
}

TEST(Findings, OtherSetsThanTheSlicesHaveContentOnly) {
  AnalysisRecord record = testing::planted_record({0, 3}, 0.01, 7, [](std::size_t, int) { return Planted{}; });
  record.identity.sets[0] = "all:embedding";
  const Findings found = find(record);
  EXPECT_EQ(found.step, (std::vector<std::int64_t>{0, 3}));
  EXPECT_EQ(found.content.size(), 2U);
  EXPECT_TRUE(found.motifs.empty());
  EXPECT_TRUE(found.dissociation.empty());
}

TEST(Findings, AFieldOfAnotherSizeIsNamed) {
  AnalysisRecord record = testing::planted_record({8}, 0.01, 8, [](std::size_t, int) { return Planted{}; });
  record.rows[0].mass_sequence.pop_back();
  try {
    find(record);
    FAIL() << "expected an error";
  } catch (const data::Error& error) {
    EXPECT_STREQ(error.what(), "row of step 8: mass_sequence has 431 values, expected 432");
  }
}

Planted rising(std::size_t row, int, double scale) {
  return {scale * (log_steps[row] >= 64 ? 0.3 : 0.0), 0, 0.6};
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
      // No wider than with t of 2 degrees of freedom in place of 23, up to the error of the fifth smallest resample of
      // 2000, which that extrapolates.
      const double wider = student_t_quantile(0.975, 2) / student_t_quantile(0.975, 23);
      const double half = 0.5 * (a.excess[row].ci.upper - a.excess[row].ci.lower);
      EXPECT_GT(b.excess[row].ci.upper - b.excess[row].ci.lower, 2 * half);
      EXPECT_LT(b.excess[row].ci.upper - b.excess[row].ci.lower, 2.5 * wider * half);
    }
  }
  EXPECT_EQ(pooled.dissociation.back().idle, alone.dissociation.back().idle);
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
  // Mean 3, standard error sqrt(7 / 3) in units of 0.3, extrapolated from the fifth of 2000 normal resamples, at z.
  const double t = student_t_quantile(0.975, 2), error = 0.3 * std::sqrt(7.0 / 3);
  const double p = least_beyond / (findings_resamples + 1), z = normal_quantile(1 - p);
  const double density = std::exp(-0.5 * z * z) / std::sqrt(2 * std::acos(-1.0));
  const double tolerance = 4 * std::sqrt(p / findings_resamples) / density * t / z * error;
  EXPECT_NEAR(effect.ci.lower, 0.9 - t * error, tolerance);
  EXPECT_NEAR(effect.ci.upper, 0.9 + t * error, tolerance);
  EXPECT_TRUE(std::isnan(pooled.motifs[0].onset.value));  // 3 such runs do not show that others have the motif
}

TEST(Findings, RunsThatAgreeHaveAnOnset) {
  std::vector<AnalysisRecord> runs;
  for (std::uint64_t seed : {11U, 12U, 13U})
    runs.push_back(testing::planted_record(log_steps, 0.1, seed, [&](std::size_t row, int s) {
      return rising(row, s, 1 + 0.1 * (static_cast<double>(seed) - 12));
    }));
  const Motif& motif = *testing::motif_named(pool(runs), "embedding_early_mlp");
  EXPECT_EQ(motif.onset.value, 64);
  expect_within(motif.onset, 64, "onset");
}

TEST(Findings, EveryComparisonWithTheHeaviestSliceIsCounted) {
  const int heavy = testing::slice_index("history.mlp.mid"), strong = testing::slice_index("current.mlp.late");
  AnalysisRecord record = testing::planted_record({1}, 0, 21, [&](std::size_t, int s) {
    return Planted{0, 0, s == heavy ? 0.7 : 0.1};
  });
  // One slice is stronger by t = 2.5 with 23 degrees of freedom; the others are as strong as the heaviest.
  std::vector<double>& values =
      record.rows[0].ablations.front().sets[static_cast<std::size_t>(strong)].delta_nll_sequence;
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = 2.5 / std::sqrt(23.0) + (i % 2 == 0 ? 1 : -1);
  const Dissociation found = find(record).dissociation.at(0);
  const auto tested =
      std::count_if(found.free_mass.begin(), found.free_mass.end(), [](double mass) { return !std::isnan(mass); });
  EXPECT_GT(tested, 10);
  EXPECT_NEAR(found.p_largest, student_t_cdf(-2.5, 23) * static_cast<double>(tested - 1), 1e-12);
}

TEST(Findings, RunsMeasuredOtherwiseAreRefused) {
  const auto planted = [](std::size_t, int) { return Planted{}; };
  const AnalysisRecord one = testing::planted_record({0, 1}, 0.01, 14, planted);
  const auto error_of = [&](const std::function<void(AnalysisRecord&)>& change) {
    std::vector<AnalysisRecord> runs = {one, one};
    change(runs[1]);
    try {
      pool(runs);
    } catch (const data::Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(error_of([](AnalysisRecord& run) { run.identity.tokens.ids[3] += 1; }),
            "run 2 of 2: its probe tokens differ from those of run 1");
  EXPECT_EQ(error_of([](AnalysisRecord& run) { run.identity.settings.controls += 1; }),
            "run 2 of 2: its probe settings differ from those of run 1: controls: found 5, expected 4");
  EXPECT_EQ(error_of([](AnalysisRecord& run) { run.identity.patch = run.identity.tokens; }),
            "run 2 of 2: its aligned tokens differ from those of run 1");
  EXPECT_EQ(error_of([](AnalysisRecord& run) {
              run.identity.classes.push_back({"class", {"a"}, {}});
            }),
            "run 2 of 2: its token classes differ from those of run 1");
  EXPECT_EQ(error_of([](AnalysisRecord& run) { run.identity.model_config += " "; }),
            "run 2 of 2: its model configuration differs from that of run 1");
  EXPECT_EQ(error_of([](AnalysisRecord& run) {
              run.rows[0].step = 7;
              run.rows[1].step = 8;
            }),
            "the 2 runs have no probed step in common");
}

}  // namespace
}  // namespace routescope::analysis
