// What several runs say together is said of every one of them.
#include <gtest/gtest.h>

#include "analysis/findings/findings.h"
#include "analysis/findings/resampled.h"
#include "tests/analysis/findings/findings_case.h"

namespace routescope::analysis {
namespace {

using testing::findings_sequences;
using testing::motif_named;
using testing::Planted;
using testing::planted_record;
using testing::slice_index;

TEST(PooledFindings, ASliceBesideThePapersMotifsIsFoundInEveryRunOrNotAtAll) {
  const int other = slice_index("history.mlp.mid");
  const auto run_with = [&](double effect, std::uint64_t seed) {
    return planted_record({10}, 0.01, seed, [&](std::size_t, int s) {
      return Planted{s == other ? effect : 0, 0, 0.2};
    });
  };
  const AnalysisRecord strong = run_with(0.1, 17), again = run_with(0.1, 18), weak = run_with(0, 19);
  EXPECT_NE(motif_named(pool(std::vector<AnalysisRecord>{strong, again}), "history.mlp.mid"), nullptr);
  EXPECT_EQ(motif_named(pool(std::vector<AnalysisRecord>{strong, weak}), "history.mlp.mid"), nullptr);
  EXPECT_EQ(motif_named(pool(std::vector<AnalysisRecord>{weak, strong}), "history.mlp.mid"), nullptr);
}

TEST(PooledFindings, PooledIntervalsAreAsWideAsTheRunWithTheFewestSequencesAsks) {
  const auto planted = [](std::size_t, int) { return Planted{0.3, 0.1, 0.6}; };
  const AnalysisRecord whole = planted_record({5}, 0.05, 20, planted);
  AnalysisRecord early = whole;
  constexpr std::size_t used = 10, set = 4;
  SetEffect& effect = early.rows[0].ablations.front().sets[set];
  for (std::size_t i = used; i < findings_sequences; ++i)
    effect.delta_nll_sequence[i] = effect.control.delta_nll_sequence[i] = nan;
  const Rows of_whole = {&whole.rows[0]}, of_early = {&early.rows[0]};
  for (const std::vector<Rows>& runs : {std::vector<Rows>{of_whole, of_early}, {of_early, of_whole}}) {
    const Curves curves = make_curves(runs, num_slices, findings_sequences, 1, 50, true);
    EXPECT_EQ(curves.used[set], used);
    EXPECT_EQ(curves.used[set + 1], static_cast<std::size_t>(findings_sequences));
  }
}

}  // namespace
}  // namespace routescope::analysis
