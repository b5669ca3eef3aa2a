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

}  // namespace
}  // namespace routescope::analysis
