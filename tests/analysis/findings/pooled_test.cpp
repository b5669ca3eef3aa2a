// What several runs say together is said of every one of them.
#include <gtest/gtest.h>

#include "analysis/findings/findings.h"
#include "tests/analysis/findings/findings_case.h"

namespace routescope::analysis {
namespace {

using testing::motif_named;
using testing::Planted;
using testing::planted_record;
using testing::slice_index;

TEST(PooledFindings, ASliceBesideThePapersMotifsIsFoundOverTheRuns) {
  const int other = slice_index("history.mlp.mid");
  const auto run_with = [&](double effect, std::uint64_t seed) {
    return planted_record({10}, 0.01, seed, [&](std::size_t, int s) {
      return Planted{s == other ? effect : 0, 0, 0.2};
    });
  };
  const AnalysisRecord strong = run_with(0.1, 17), again = run_with(0.1, 18), third = run_with(0.1, 22),
                       weak = run_with(0, 19);
  EXPECT_NE(motif_named(pool(std::vector<AnalysisRecord>{strong, again, third}), "history.mlp.mid"), nullptr);
  EXPECT_EQ(motif_named(pool(std::vector<AnalysisRecord>{strong, weak}), "history.mlp.mid"), nullptr);
  EXPECT_EQ(motif_named(pool(std::vector<AnalysisRecord>{weak, strong}), "history.mlp.mid"), nullptr);
}

TEST(PooledFindings, OneDocumentShowsNothing) {
  std::vector<AnalysisRecord> runs;
  for (std::uint64_t seed : {40U, 41U, 42U}) {
    runs.push_back(planted_record({10}, 0.01, seed, [](std::size_t, int) { return Planted{0.3, 0, 0.3}; }));
    runs.back().identity.tokens.documents.assign(runs.back().identity.tokens.documents.size(), 7);
  }
  const Findings found = pool(runs);
  EXPECT_FALSE(found.learned.back().shown());
  for (const Motif& motif : found.motifs) EXPECT_FALSE(motif.p.back() < 0.05) << motif.name;
  for (const Contest& contest : found.dissociation.back().contests) EXPECT_FALSE(contest.differ());
}

TEST(PooledFindings, AllThreeMotifsCanBeShown) {
  const auto planted = [](std::size_t, int s) {
    for (const char* name : {"embedding.mlp.early", "current.attn.early", "current.mlp.early", "history.attn.late"})
      if (s == slice_index(name)) return Planted{0.5, 0.1, 0.3};
    return Planted{0, 0, 0.3};
  };
  const Findings found = find(planted_record({10}, 0.01, 43, planted));
  for (std::size_t m = 0; m < 3; ++m) EXPECT_LT(found.motifs[m].p.back(), 0.05) << found.motifs[m].name;
}

TEST(PooledFindings, WhatIsSoAtStepZeroIsNoDissociation) {
  const auto planted = [](std::size_t, int s) {
    return Planted{s == slice_index("current.mlp.late") ? 0.5 : 0.0, 0,
                   s == slice_index("history.mlp.mid") ? 0.7 : 0.1};
  };
  const Findings found = find(planted_record({0, 10}, 0.001, 44, planted));
  for (const Contest& contest : found.dissociation.back().contests) EXPECT_FALSE(contest.differ());
  std::size_t alone = 0;
  for (const Contest& contest : found.dissociation.front().contests) alone += contest.p_alone < 0.05;
  EXPECT_GT(alone, 0U);
}

}  // namespace
}  // namespace routescope::analysis
