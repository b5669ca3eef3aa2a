// Kendall's tau is Kendall's, its interval holds the true one, and its p value is that of permutations.
#include "analysis/statistics/concordance.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <stdexcept>

namespace routescope::analysis {
namespace {

using Items = std::vector<std::vector<double>>;  // [item][unit]

/// Each item has the same value in every one of 20 units.
Items exact(const std::vector<double>& values) {
  Items out;
  for (double value : values) out.emplace_back(20, value);
  return out;
}

TEST(Concordance, KnownOrders) {
  // 1 3 2 4 against 1 2 3 4: one discordant pair of six. Of the 24 orders, 1, 3, 5, 6, 5, 3, 1 have 0 to 6 discordant.
  const Concordance one = concordance(exact({1, 2, 3, 4}), exact({1, 3, 2, 4}), {}, {});
  EXPECT_EQ(one.pairs, 6);
  EXPECT_DOUBLE_EQ(one.tau, 4.0 / 6);
  EXPECT_DOUBLE_EQ(one.ci.lower, 4.0 / 6);  // every order is known
  EXPECT_DOUBLE_EQ(one.ci.upper, 4.0 / 6);
  EXPECT_DOUBLE_EQ(one.p, 8.0 / 24);
  const Concordance opposite = concordance(exact({1, 2, 3, 4}), exact({4, 3, 2, 1}), {}, {});
  EXPECT_DOUBLE_EQ(opposite.tau, -1);
  EXPECT_DOUBLE_EQ(opposite.p, 2.0 / 24);
}

TEST(Concordance, PairsAreOfOneGroup) {
  // Groups of 2 and 3 items: 1 + 3 pairs. Between groups the orders disagree, which does not count.
  const std::vector<std::int64_t> groups = {8, 3, 8, 3, 3};
  const Concordance two = concordance(exact({1, 10, 2, 11, 12}), exact({10, 1, 20, 2, 3}), groups, {});
  EXPECT_EQ(two.pairs, 4);
  EXPECT_DOUBLE_EQ(two.tau, 1);
  EXPECT_DOUBLE_EQ(two.p, 2.0 / 12);
  // A tie counts neither way, and its order is not known. p then comes from permutations: 2 of 6 orders of b are tied
  // alike, and none is farther.
  const Concordance tied = concordance(exact({1, 1, 2}), exact({1, 2, 3}), {}, {5});
  EXPECT_DOUBLE_EQ(tied.tau, 2.0 / 3);
  EXPECT_DOUBLE_EQ(tied.ci.lower, 1.0 / 3);
  EXPECT_DOUBLE_EQ(tied.ci.upper, 1);
  EXPECT_NEAR(tied.p, 4.0 / 6, 4 * std::sqrt(2.0 / 9 / permutations));
}

TEST(Concordance, WhatCannotBeSaid) {
  EXPECT_TRUE(std::isnan(concordance({}, {}, {}, {}).tau));
  EXPECT_TRUE(std::isnan(concordance(exact({1}), exact({1}), {}, {}).p));
  EXPECT_TRUE(std::isnan(concordance(exact({1, 2}), exact({1, 2}), std::vector<std::int64_t>{0, 1}, {}).tau));
  const Concordance one_unit = concordance({{1}, {2}}, {{1}, {2}}, {}, {});
  EXPECT_EQ(one_unit.tau, 1);
  EXPECT_TRUE(std::isnan(one_unit.ci.lower));
  Items b = exact({1, 2, 3});
  b[1][4] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(concordance(exact({1, 2, 3}), b, {}, {}).pairs, 1);
  EXPECT_THROW(concordance(exact({1, 2}), exact({1}), {}, {}), std::invalid_argument);
  EXPECT_THROW(concordance(exact({1, 2}), {{1}, {2, 3}}, {}, {}), std::invalid_argument);
  EXPECT_THROW(concordance(exact({1, 2}), exact({1, 2}), std::vector<std::int64_t>{1}, {}), std::invalid_argument);
}

TEST(Concordance, ExactAndRandomPValuesAgree) {
  // Nine items in three groups; the random ones from items of which two tie, where ties can hardly matter.
  std::mt19937_64 random(20261109);
  std::normal_distribution<double> normal;
  std::vector<double> a, b;
  std::vector<std::int64_t> groups;
  for (int i = 0; i < 30; ++i) {
    a.push_back(i);
    b.push_back(i + 12 * normal(random));
    groups.push_back(i % 3);
  }
  const double exactly = concordance(exact(a), exact(b), groups, {1}).p;
  EXPECT_GT(exactly, 1e-5);
  EXPECT_LT(exactly, 0.2);
  // The same by the definition.
  std::vector<std::vector<double>> of_group(3);
  for (std::size_t i = 0; i < b.size(); ++i) of_group[i % 3].push_back(b[i]);
  const auto score = [&] {
    int sum = 0;
    for (const auto& one : of_group) {
      for (std::size_t i = 0; i < one.size(); ++i) {
        for (std::size_t j = 0; j < i; ++j) sum += one[i] > one[j] ? 1 : -1;
      }
    }
    return std::abs(sum);
  };
  const int observed = score();
  constexpr int shuffles = 100000;
  int extreme = 0;
  for (int shuffle = 0; shuffle < shuffles; ++shuffle) {
    for (auto& one : of_group) std::shuffle(one.begin(), one.end(), random);
    extreme += score() >= observed;
  }
  EXPECT_NEAR(extreme / double{shuffles}, exactly, 4 * std::sqrt(exactly / shuffles)) << "seed 20261109";
  a[3] = a[0];  // a tie: now from random permutations
  const double by_chance = concordance(exact(a), exact(b), groups, {1}).p;
  EXPECT_EQ(concordance(exact(a), exact(b), groups, {1}).p, by_chance);
  EXPECT_NE(concordance(exact(a), exact(b), groups, {2}).p, by_chance);
  EXPECT_NEAR(by_chance, exactly, 0.5 * exactly + 4 * std::sqrt(exactly / permutations));
}

/// Values of `units` units about `truth`; a unit shifts all items alike.
Items noisy(const std::vector<double>& truth, double noise, std::size_t units, bool skewed, std::mt19937_64& random) {
  std::normal_distribution<double> normal;
  Items out(truth.size());
  for (std::size_t unit = 0; unit < units; ++unit) {
    const double own = noise * normal(random);
    for (std::size_t item = 0; item < truth.size(); ++item) {
      const double draw = skewed ? std::exp(normal(random)) - std::exp(0.5) : normal(random);
      out[item].push_back(truth[item] + own + noise * draw);
    }
  }
  return out;
}

double true_tau(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0, pairs = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      const double product = (a[i] - a[j]) * (b[i] - b[j]);
      sum += (product > 0) - (product < 0);
      pairs += 1;
    }
  }
  return sum / pairs;
}

/// Spearman's by percentiles of resampled units, which is what used to be reported.
bool percentiles_hold(const Items& a, const Items& b, double truth) {
  std::vector<double> resampled, mean_a(a.size()), mean_b(a.size());
  const std::size_t units = a[0].size();
  for (std::uint64_t number = 0; number < 200; ++number) {
    std::fill(mean_a.begin(), mean_a.end(), 0.0);
    std::fill(mean_b.begin(), mean_b.end(), 0.0);
    for (std::size_t unit : resample_indices(units, units - 1, {7}, number)) {
      for (std::size_t item = 0; item < a.size(); ++item) {
        mean_a[item] += a[item][unit];
        mean_b[item] += b[item][unit];
      }
    }
    resampled.push_back(rank_correlation(mean_a, mean_b));
  }
  const Interval interval = percentile_interval(resampled, static_cast<double>(units) - 1);
  return interval.lower <= truth && truth <= interval.upper;
}

TEST(Concordance, TheIntervalHoldsTheTrueTau) {
  std::mt19937_64 random(20261110);
  RecordProperty("seed", 20261110);
  std::vector<double> up, shuffled, spread;
  for (int i = 0; i < 12; ++i) {
    up.push_back(i);
    shuffled.push_back(i * 5 % 12);
    spread.push_back(std::pow(1.7, i) / 20);
  }
  struct Case {
    const char* name;
    std::vector<double> a, b;
    double noise;
    bool skewed = false;
    bool spearman_fails = false;
  };
  const Case cases[] = {
      {"truth 1, neighbours a fifth of a standard error apart", up, up, 30, false, true},
      {"truth 1, neighbours two standard errors apart", up, up, 3, false, true},
      {"truth 1, effects over orders of magnitude", up, spread, 2, false, true},
      {"truth 1, skewed noise", up, spread, 2, true, true},
      {"near 0, known", up, shuffled, 3},
      {"near 0, noisy", up, shuffled, 30},
      {"0: all effects are equal", up, std::vector<double>(12, 1.0), 3},
  };
  constexpr int repetitions = 2000;
  for (const Case& one : cases) {
    const double truth = true_tau(one.a, one.b);
    int held = 0, by_percentiles = 0, associated = 0;
    double width = 0;
    for (int repetition = 0; repetition < repetitions; ++repetition) {
      const Items a = noisy(one.a, 0.05, 32, false, random), b = noisy(one.b, one.noise, 32, one.skewed, random);
      const Concordance found = concordance(a, b, {}, {3});
      held += found.ci.lower <= truth + 1e-9 && truth - 1e-9 <= found.ci.upper;
      width += (found.ci.upper - found.ci.lower) / repetitions;
      associated += found.p < 0.05;
      if (repetition < 200) by_percentiles += percentiles_hold(a, b, 1);
    }
    std::printf("%-56s tau %5.2f: held %.1f %%, mean width %.2f, p < 5 %% in %.1f %%", one.name, truth,
                100.0 * held / repetitions, width, 100.0 * associated / repetitions);
    if (one.spearman_fails) std::printf("; percentiles of Spearman's %.1f %%", by_percentiles / 2.0);
    std::printf("\n");
    EXPECT_GE(held, 0.95 * repetitions - 3 * std::sqrt(0.05 * 0.95 * repetitions)) << one.name;
    if (one.noise < 5 && !one.skewed && true_tau(one.a, one.b) != 0) {
      EXPECT_LT(width, 1.2) << one.name;
    }
    if (one.spearman_fails && one.noise > 5) {
      EXPECT_LT(by_percentiles, 0.2 * 200) << one.name;
    }
  }
}

TEST(Concordance, NoAssociationIsFoundNoOftenerThanItMay) {
  std::mt19937_64 random(20261111);
  RecordProperty("seed", 20261111);
  std::normal_distribution<double> normal;
  constexpr int repetitions = 2000;
  std::vector<std::int64_t> groups;
  for (int i = 0; i < 24; ++i) groups.push_back(i / 6);
  int grouped = 0, tied = 0;
  for (int repetition = 0; repetition < repetitions; ++repetition) {
    Items a, b, coarse;
    for (int i = 0; i < 24; ++i) {
      const double shift = 10.0 * (i / 6);  // groups differ in both, items within do not
      a.emplace_back(2, shift + normal(random));
      b.emplace_back(2, shift + normal(random));
      coarse.emplace_back(2, std::round(normal(random)));
    }
    grouped += concordance(a, b, groups, {1}).p < 0.05;
    if (repetition % 10 == 0) tied += concordance(a, coarse, groups, {1}).p < 0.05;
  }
  std::printf("no association: p < 5 %% in %.1f %%, with ties %.1f %%\n", 100.0 * grouped / repetitions,
              1000.0 * tied / repetitions);
  EXPECT_NEAR(grouped, 0.05 * repetitions, 3 * std::sqrt(0.05 * 0.95 * repetitions));
  EXPECT_LE(tied, 0.05 * 200 + 3 * std::sqrt(0.05 * 0.95 * 200));
}

}  // namespace
}  // namespace routescope::analysis
