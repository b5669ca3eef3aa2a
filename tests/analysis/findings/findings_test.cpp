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

/// The mass of a slice whose reads that masking can change weigh `changed` on average.
double whole_mass(int slice, double changed) {
  const RouteSet set = slice_sets(testing::findings_plan())[static_cast<std::size_t>(slice)];
  const auto reads = changed_reads(testing::findings_plan(), Ablation::mask, whole(set)).size();
  // Of the micro model's reads only 0.attn has a single source, the embedding.
  const double certain = set.name == "embedding.attn.early" ? 1 : 0;
  return (changed * static_cast<double>(reads) + certain) / static_cast<double>(set.reads.size());
}

const MassAgainstEffect& by_alpha(const Dissociation& row) {
  return row.of(MassKind::alpha);
}

/// The contest of this name.
const Contest& contest(const Dissociation& row, const std::string& name) {
  for (std::size_t c = 0; c < num_contests; ++c)
    if (to_string(contest_name(c)) == name) return row.contests[c];
  throw std::out_of_range(name);
}

TEST(Findings, MassThatNoAblationCanTouchDoesNotCount) {
  // 0.attn has one source, whose weight is 1; 1.attn has two, of which the embedding has a tenth.
  const int certain = testing::slice_index("embedding.attn.early"), heavy = testing::slice_index("embedding.attn.mid");
  const auto planted = [&](std::size_t, int s) {
    return Planted{s == heavy ? 0.5 : 0.0, 0, s == certain ? 0.55 : s == heavy ? 0.5 : 0.02};
  };
  AnalysisRecord record = testing::planted_record({10}, 0.001, 15, planted);
  for (std::size_t i = 0; i < testing::findings_sequences; ++i)  // less than a tenth of what can be changed
    record.rows[1].mass_sequence[static_cast<std::size_t>(certain) * testing::findings_sequences + i] = 0.54;
  Dissociation found = find(record).dissociation.back();
  EXPECT_EQ(found.largest_mass, heavy);
  EXPECT_EQ(contest(found, "attn.slices.alpha").heaviest, heavy);
  EXPECT_FALSE(contest(found, "attn.slices.alpha").differ());
  EXPECT_TRUE(by_alpha(found).idle.empty());
  for (ProbeRow& row : record.rows) row.ablations[0].ablation = Ablation::zero;  // which can take that weight
  found = find(record).dissociation.back();
  EXPECT_EQ(found.largest_mass, certain);
  EXPECT_TRUE(contest(found, "attn.slices.alpha").differ());
  EXPECT_EQ(by_alpha(found).idle, std::vector<int>{certain});
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
  const Findings findings = find(record);
  const Dissociation& found = findings.dissociation.back();
  EXPECT_EQ(found.largest_mass, heavy);
  EXPECT_EQ(found.largest_effect, strong);
  EXPECT_EQ(contest(found, "mlp.slices.alpha").heaviest, heavy);
  EXPECT_EQ(contest(found, "mlp.slices.alpha").strongest, strong);
  EXPECT_LT(contest(found, "mlp.slices.alpha").p_adjusted, 1e-6);
  EXPECT_EQ(by_alpha(found).idle, std::vector<int>{heavy});
  EXPECT_DOUBLE_EQ(by_alpha(found).rank_correlation, -1);
  EXPECT_DOUBLE_EQ(by_alpha(found).over.tau, -1);
  EXPECT_LT(by_alpha(found).over.ci.upper, 0);
  EXPECT_EQ(by_alpha(found).over.ci.lower, -1);
  EXPECT_LT(by_alpha(found).over.p, 0.001);
  EXPECT_EQ(found.of(MassKind::contribution).idle, by_alpha(found).idle);  // the same numbers

  // The same tests fail at step 0, where nothing was learned.
  const Dissociation& initial = findings.dissociation.front();
  for (std::size_t c = 0; c < num_contests; ++c) EXPECT_EQ(initial.contests[c].p, 1) << to_string(contest_name(c));
  EXPECT_TRUE(by_alpha(initial).idle.empty());
}

TEST(Findings, AgreementOfMassAndEffectIsNotDenied) {
  const int largest = testing::slice_index("embedding.attn.mid"), untested = testing::slice_index("current.attn.early");
  const auto planted = [&](std::size_t, int s) {
    if (s == untested) return Planted{nan, 0, 0.9};
    const double size = s == largest ? 0.8 : 0.02 * s;
    return Planted{size, 0, whole_mass(s, size)};
  };
  const Dissociation found = find(testing::planted_record({10}, 0.001, 2, planted)).dissociation.back();
  EXPECT_EQ(found.largest_mass, largest);
  EXPECT_EQ(found.largest_effect, largest);
  EXPECT_FALSE(contest(found, "attn.slices.alpha").differ());
  EXPECT_EQ(contest(found, "attn.slices.alpha").p, 1);
  EXPECT_DOUBLE_EQ(by_alpha(found).over.tau, 1);
  EXPECT_EQ(by_alpha(found).over.ci.upper, 1);
  EXPECT_GT(by_alpha(found).over.ci.lower, 0.5);
  EXPECT_TRUE(by_alpha(found).idle.empty());
}

TEST(Findings, ANearTieOfMassesDecidesNothing) {
  // Two slices weigh nearly alike; the one that is ahead by a little does nothing, the other is the strongest.
  const int ahead = testing::slice_index("history.mlp.mid"), behind = testing::slice_index("current.mlp.late");
  const auto found_with = [&](double gap) {
    return find(testing::planted_record({10}, 0.001, 30,
                                        [&](std::size_t, int s) {
                                          return Planted{s == behind ? 0.5 : 0.0, 0,
                                                         whole_mass(s, s == ahead    ? 0.6 + gap
                                                                       : s == behind ? 0.6
                                                                                     : 0.1)};
                                        }))
        .dissociation.back();
  };
  EXPECT_EQ(contest(found_with(0.01), "mlp.slices.alpha").heaviest, ahead);
  EXPECT_EQ(contest(found_with(0.01), "mlp.slices.alpha").p, 1);
  EXPECT_TRUE(contest(found_with(0.05), "mlp.slices.alpha").differ());
}

TEST(Findings, ADifferenceWithinTheMarginIsNone) {
  const int heavy = testing::slice_index("history.mlp.mid"), strong = testing::slice_index("current.mlp.late");
  const auto found_with = [&](double effect) {
    return find(testing::planted_record(
                    {10}, 0.0001, 31,
                    [&](std::size_t, int s) {
                      return Planted{s == strong ? effect : 0.0, 0, whole_mass(s, s == heavy ? 0.6 : 0.1)};
                    }))
        .dissociation.back();
  };
  EXPECT_FALSE(contest(found_with(0.009), "mlp.slices.alpha").differ());  // the margin is 0.01
  EXPECT_TRUE(contest(found_with(0.02), "mlp.slices.alpha").differ());
}

TEST(Findings, FamiliesAreJudgedByTheirSlicesTogether) {
  // History weighs the most in MLP reads, and the embedding's three slices together matter the most.
  const auto planted = [&](std::size_t, int s) {
    const bool mlp = s / 3 % 2 == 1;
    return Planted{mlp && s / 6 == 0 ? 0.1 : 0.0, 0, whole_mass(s, s / 6 == 1 ? 0.6 : 0.2)};
  };
  const Dissociation found = find(testing::planted_record({10}, 0.001, 32, planted)).dissociation.back();
  const Contest& families = contest(found, "mlp.families.alpha");
  EXPECT_EQ(families.heaviest, 1);
  EXPECT_EQ(families.strongest, 0);
  EXPECT_TRUE(families.differ());
  EXPECT_FALSE(contest(found, "attn.families.alpha").differ());
}

TEST(Findings, WhatSomeDocumentsNeedIsNotCalledIdle) {
  // The mean is within the margin, but a fifth of the documents is not.
  const int heavy = testing::slice_index("history.mlp.mid");
  AnalysisRecord record = testing::planted_record({10}, 0.0001, 33, [&](std::size_t, int s) {
    return Planted{0, 0, whole_mass(s, s == heavy ? 0.6 : 0.05)};
  });
  EXPECT_EQ(by_alpha(find(record).dissociation.back()).idle, std::vector<int>{heavy});
  SetEffect& set = record.rows[1].ablations[0].sets[static_cast<std::size_t>(heavy)];
  for (std::size_t i = 0; i < 6; ++i) set.delta_nll_sequence[4 * i] = 0.02;
  EXPECT_TRUE(by_alpha(find(record).dissociation.back()).idle.empty());
}

TEST(Findings, WithoutStepZeroNothingIsJudged) {
  AnalysisRecord record = testing::planted_record({10}, 0.001, 34, [&](std::size_t, int s) {
    return Planted{s == 3 ? 0.5 : 0.0, 0, whole_mass(s, s == 10 ? 0.6 : 0.1)};
  });
  EXPECT_LT(find(record).motifs[0].p.back(), 0.05);
  record.rows.erase(record.rows.begin());
  const Findings found = find(record);
  EXPECT_FALSE(found.learned.back().known());
  EXPECT_TRUE(std::isnan(found.motifs[0].p.back()));
  for (const Contest& one : found.dissociation.back().contests) EXPECT_TRUE(std::isnan(one.p));
}

TEST(Findings, AModelThatLearnedNothingShowsNothing) {
  AnalysisRecord record = testing::planted_record({10}, 0.001, 35, [&](std::size_t, int s) {
    return Planted{s == 3 ? 0.5 : 0.0, 0, whole_mass(s, s == 10 ? 0.6 : 0.1)};
  });
  record.rows[1].intact_nll_sequence = record.rows[0].intact_nll_sequence;
  const Findings found = find(record);
  EXPECT_FALSE(found.learned.back().shown());
  EXPECT_EQ(found.motifs[0].p.back(), 1);
  for (const Contest& one : found.dissociation.back().contests) EXPECT_FALSE(one.differ());
}

TEST(Findings, SequencesOfOneDocumentCountOnce) {
  // Every document's effect is its own; repeated four times it is no more evidence.
  AnalysisRecord record = testing::planted_record({10}, 0.2, 36, [&](std::size_t, int s) {
    return Planted{s == 3 ? 0.3 : 0.0, 0, whole_mass(s, 0.3)};
  });
  for (ProbeRow& row : record.rows) {
    for (SetEffect& set : row.ablations[0].sets) {
      for (ControlEffect* control : {&set.control, &set.contribution_control})
        for (std::size_t i = 0; i < testing::findings_sequences; ++i)
          control->delta_nll_sequence[i] = control->delta_nll_sequence[i / 4 * 4];
      for (std::size_t i = 0; i < testing::findings_sequences; ++i)
        set.delta_nll_sequence[i] = set.delta_nll_sequence[i / 4 * 4];
    }
  }
  const Estimate apart = find(record).motifs[0].excess.back();
  for (std::size_t i = 0; i < testing::findings_sequences; ++i)
    record.identity.tokens.documents[i] = static_cast<std::int64_t>(i / 4);
  const Estimate clustered = find(record).motifs[0].excess.back();
  EXPECT_NEAR(clustered.value, apart.value, 1e-12);
  EXPECT_GT(clustered.ci.upper - clustered.ci.lower, 1.8 * (apart.ci.upper - apart.ci.lower));
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
  record.rows[1].mass_sequence.pop_back();
  try {
    find(record);
    FAIL() << "expected an error";
  } catch (const data::Error& error) {
    EXPECT_STREQ(error.what(), "row of step 8: mass_sequence has 575 values, expected 576");
  }
}

TEST(Findings, EveryComparisonWithTheHeaviestSliceIsCounted) {
  const int heavy = testing::slice_index("history.mlp.mid"), strong = testing::slice_index("current.mlp.late");
  AnalysisRecord record = testing::planted_record({1}, 0, 21, [&](std::size_t, int s) {
    return Planted{0, 0, whole_mass(s, s == heavy ? 0.7 : 0.1)};
  });
  // One slice is stronger than the margin by t = 2.5 with 31 degrees of freedom; the others are as strong as the
  // heaviest.
  std::vector<double>& values =
      record.rows[1].ablations.front().sets[static_cast<std::size_t>(strong)].delta_nll_sequence;
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = 0.01 + 2.5 / std::sqrt(31.0) + (i % 2 == 0 ? 1 : -1);
  const Dissociation found = find(record).dissociation.back();
  const std::vector<double>& free_mass = by_alpha(found).free_mass;
  std::size_t tested = 0;
  for (std::size_t s = 0; s < free_mass.size(); ++s) tested += s / 3 % 2 == 1 && !std::isnan(free_mass[s]);
  EXPECT_GT(tested, 5U);
  EXPECT_NEAR(contest(found, "mlp.slices.alpha").p, student_t_cdf(-2.5, 31) * static_cast<double>(tested - 1), 1e-12);
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
            "run 2 of 2: its probe settings differ from those of run 1: controls: found 2, expected 1");
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
