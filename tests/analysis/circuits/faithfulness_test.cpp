// Intervals of faithfulness, areas, and overlaps of circuits.
#include "analysis/circuits/faithfulness.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <random>

#include "analysis/circuits/circuit.h"
#include "analysis/circuits/overlap.h"

namespace routescope::analysis {
namespace {

struct Covered {
  double held = 0, shown = 0;
};

/// How often the interval holds the true ratio, of the sets in which the cost of everything is shown: n documents of
/// `windows` windows each, cost 1 on average, of which a cut loses a third.
Covered coverage(std::size_t n, std::size_t windows, double spread, int sets) {
  Covered out;
  for (int set = 0; set < sets; ++set) {
    std::mt19937_64 random(static_cast<std::uint64_t>(set));
    std::normal_distribution<double> normal;
    std::vector<double> none, loss;
    std::vector<std::int64_t> documents;
    for (std::size_t d = 0; d < n; ++d) {
      const double of_document = std::exp(spread * normal(random) - spread * spread / 2);
      for (std::size_t w = 0; w < windows; ++w) {
        none.push_back(of_document * (1 + 0.2 * normal(random)));
        loss.push_back(of_document * (1 + 0.5 * normal(random)) / 3);
        documents.push_back(static_cast<std::int64_t>(d));
      }
    }
    const DocumentRatios ratios(none, documents, {static_cast<std::uint64_t>(set), 0, 0, 0});
    if (!ratios.shown()) continue;
    ++out.shown;
    const Estimate f = ratios.estimate(ratios.faithfulness(loss));
    out.held += f.ci.lower <= 2.0 / 3 && 2.0 / 3 <= f.ci.upper ? 1 : 0;
  }
  out.held /= out.shown;
  return out;
}

TEST(Faithfulness, IntervalsHoldTheRatioAsOftenAsTheySay) {
  constexpr int sets = 500;
  const double least = 0.95 - 2.33 * std::sqrt(0.95 * 0.05 / sets);
  for (const std::size_t n : {8U, 16U, 32U}) {
    for (const double spread : {0.3, 1.0}) {
      const Covered of = coverage(n, 2, spread, sets);
      std::printf("%2zu documents, spread %.1f: %.1f %% of %.0f\n", n, spread, 100 * of.held, of.shown);
      EXPECT_GE(of.held, n == 8 || spread > 0.5 ? least - 0.03 : least);  // few and skewed ones: analysis/README.md
    }
  }
}

// None of the numbers is known where it is not known that anything is lost.
TEST(Faithfulness, IsNotANumberWhereNothingIsShownToBeLost) {
  const std::vector<double> none{1, -1, 0.5, -0.7, 0.2, -0.1};
  const DocumentRatios ratios(none, {}, {});
  EXPECT_FALSE(ratios.shown());
  const Estimate f = ratios.estimate(ratios.faithfulness(none));
  EXPECT_TRUE(std::isnan(f.value) && std::isnan(f.ci.lower) && std::isnan(f.ci.upper));
  const DocumentRatios alone(std::vector<double>{1.0}, {}, {});
  EXPECT_FALSE(alone.shown());
}

TEST(Faithfulness, AreasAreThoseOfTrapezoids) {
  const std::vector<std::int64_t> k{0, 1, 3, 10};
  std::vector<Resampled> curve;
  for (const double value : {0.0, 0.5, 1.0, 1.0}) curve.push_back({value, {value, 2 * value}});
  const Resampled area = area_under(k, curve);
  EXPECT_NEAR(area.value, (0.25 + 1.5 + 7) / 10, 1e-12);
  ASSERT_EQ(area.resampled.size(), 2U);
  EXPECT_NEAR(area.resampled[1], 2 * area.value, 1e-12);
}

TEST(Faithfulness, PointsOfCurves) {
  EXPECT_EQ(kept_counts(3), (std::vector<std::int64_t>{0, 1, 2, 3}));
  for (const std::size_t edges : {1U, 31U, 32U, 33U, 109U, 5000U}) {
    const std::vector<std::int64_t> k = kept_counts(edges);
    EXPECT_EQ(k.front(), 0);
    EXPECT_EQ(k.back(), static_cast<std::int64_t>(edges));
    for (std::size_t i = 1; i < k.size(); ++i) EXPECT_LT(k[i - 1], k[i]);
    EXPECT_LE(k.size(), all_points + 1);
  }
}

TEST(Overlap, OfSmallSetsByHand) {
  const std::vector<std::uint8_t> a{1, 1, 0, 0}, b{1, 0, 1, 0}, none(4, 0), all(4, 1);
  const Overlap same = overlap_of(a, a), other = overlap_of(a, b);
  EXPECT_EQ(same.jaccard, 1);
  EXPECT_NEAR(same.p, 1.0 / 6, 1e-12);  // one of the six pairs
  EXPECT_NEAR(other.jaccard, 1.0 / 3, 1e-12);
  EXPECT_EQ(other.shared, 1U);
  // Of six pairs one shares both, four share one, one shares none.
  EXPECT_NEAR(other.by_chance, 1.0 / 6 + 4.0 / 6 / 3, 1e-12);
  EXPECT_NEAR(other.p, 5.0 / 6, 1e-12);
  EXPECT_TRUE(std::isnan(overlap_of(none, none).jaccard));
  EXPECT_EQ(overlap_of(none, a).jaccard, 0);
  EXPECT_NEAR(overlap_of(all, a).by_chance, 0.5, 1e-12);
  const std::vector<std::vector<std::uint8_t>> three{a, b, all};
  const Common common = common_edges(three);
  EXPECT_EQ(common.edges, std::vector<std::size_t>{0});
  EXPECT_NEAR(common.by_chance, 4 * 0.5 * 0.5, 1e-12);
}

// Random sets are called more alike than chance no more often than the p value says.
TEST(Overlap, ChanceIsNotCalledMore) {
  std::mt19937_64 random(3);
  int called = 0;
  double mean_jaccard = 0, expected = 0;
  constexpr int pairs = 2000;
  for (int i = 0; i < pairs; ++i) {
    std::vector<std::uint8_t> a(60, 0), b(60, 0);
    std::fill(a.begin(), a.begin() + 20, 1);
    std::fill(b.begin(), b.begin() + 30, 1);
    std::shuffle(a.begin(), a.end(), random);
    std::shuffle(b.begin(), b.end(), random);
    const Overlap overlap = overlap_of(a, b);
    called += overlap.p < 0.05 ? 1 : 0;
    mean_jaccard += overlap.jaccard / pairs;
    expected = overlap.by_chance;
  }
  EXPECT_LE(called, (0.05 + 2.33 * std::sqrt(0.05 * 0.95 / pairs)) * pairs);
  EXPECT_NEAR(mean_jaccard, expected, 0.006);
}

}  // namespace
}  // namespace routescope::analysis
