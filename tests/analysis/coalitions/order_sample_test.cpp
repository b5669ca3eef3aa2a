// Shapley values over random orders, and when there are enough of these.
#include "analysis/coalitions/order_sample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>

#include "analysis/coalitions/coalition.h"
#include "analysis/statistics/permutation.h"
#include "analysis/statistics/two_way.h"

namespace routescope::analysis {
namespace {

TEST(OrderSample, IsLookedAtWhenItHasDoubled) {
  EXPECT_EQ(order_looks(16, true), (std::vector<int>{4, 8, 16}));
  EXPECT_EQ(order_looks(20, true), (std::vector<int>{4, 8, 16, 20}));
  EXPECT_EQ(order_looks(4, true), std::vector<int>{4});
  EXPECT_EQ(order_looks(3, true), std::vector<int>{3});
  EXPECT_EQ(order_looks(16, false), std::vector<int>{16});
  EXPECT_EQ(order_looks(0, true), std::vector<int>{});
  EXPECT_EQ(order_looks(0, false), std::vector<int>{});
}

TEST(OrderSample, HasTheIntervalsOfTwoSamples) {
  const std::vector<std::vector<double>> player{{1, 2, 3, 5}, {1, 4, 7, 2}, {0, 3, 2, 2}, {9, 9, 9, 9}};
  const std::vector<Estimate> three = at_look({player}, 3, 1), again = at_look({player}, 3, 2);
  const Estimate plain = two_way_mean({player.begin(), player.begin() + 3});
  EXPECT_DOUBLE_EQ(three[0].value, plain.value);
  EXPECT_DOUBLE_EQ(three[0].ci.lower, plain.ci.lower);
  EXPECT_DOUBLE_EQ(three[0].ci.upper, plain.ci.upper);
  EXPECT_DOUBLE_EQ(again[0].value, plain.value);
  EXPECT_DOUBLE_EQ(again[0].ci.upper - plain.value, TwoWay({player.begin(), player.begin() + 3}).half_width(0.975));
  EXPECT_LT(again[0].ci.lower, plain.ci.lower);
}

TEST(OrderSample, IsNarrowWhereEveryIntervalIs) {
  const std::vector<Estimate> estimates{{1, {0.5, 1.5}}, {2, {1.9, 2.1}}};
  EXPECT_TRUE(narrow(estimates, 1.0));
  EXPECT_FALSE(narrow(estimates, 0.99));
  EXPECT_FALSE(narrow({{1, {nan, nan}}}, 1.0));
}

/// A game of each document: players alone, and every two of them together.
class Games {
 public:
  explicit Games(std::uint64_t seed) : random_(seed) {}

  static constexpr std::size_t players = 6, documents = 16;
  static double alone(std::size_t i) { return 0.1 * static_cast<double>(i); }
  static double together(std::size_t i, std::size_t j) { return (i + j) % 3 == 0 ? 0.4 : -0.1; }
  /// Of the mean game.
  static double shapley(std::size_t i) {
    double value = alone(i);
    for (std::size_t j = 0; j < players; ++j)
      if (j != i) value += together(i, j) / 2;
    return value;
  }

  /// A sample of so many pairs of orders of games drawn anew.
  OrderSample draw(std::size_t pairs) {
    std::vector<std::vector<double>> own(documents), both(documents);
    for (std::size_t d = 0; d < documents; ++d) {
      for (std::size_t i = 0; i < players; ++i) own[d].push_back(alone(i) + 0.15 * normal_(random_));
      both[d].resize(players * players);
      for (std::size_t i = 0; i < players; ++i)
        for (std::size_t j = 0; j < i; ++j)
          both[d][i * players + j] = both[d][j * players + i] = together(i, j) + 0.3 * normal_(random_);
    }
    OrderSample out(players, std::vector<std::vector<double>>(pairs, std::vector<double>(documents, 0.0)));
    for (std::size_t pair = 0; pair < pairs; ++pair) {
      std::vector<std::size_t> order = random_permutation(players, random_(), 7);
      for (int reverse = 0; reverse < 2; ++reverse, std::ranges::reverse(order)) {
        for (std::size_t d = 0; d < documents; ++d) {
          std::vector<double> along{0};
          for (std::size_t k = 0; k < players; ++k) {
            double gain = own[d][order[k]];
            for (std::size_t before = 0; before < k; ++before) gain += both[d][order[before] * players + order[k]];
            along.push_back(along.back() + gain);
          }
          const std::vector<double> gains = marginals(order, along);
          for (std::size_t i = 0; i < players; ++i) out[i][pair][d] += gains[i] / 2;
        }
      }
    }
    return out;
  }

 private:
  std::mt19937_64 random_;
  std::normal_distribution<double> normal_;
};

bool holds(const Estimate& estimate, std::size_t player) {
  return estimate.ci.lower <= Games::shapley(player) && Games::shapley(player) <= estimate.ci.upper;
}

/// Shares of players of 500 drawn games: the interval at the moment of stopping held the Shapley value; it held it at
/// every look.
struct Held {
  double when_stopped = 0, always = 0;
  int stopped_early = 0;
};
Held held(std::size_t correction, double width) {
  constexpr int games = 500;
  const std::vector<int> looks = order_looks(32, true);
  Games drawn(20260101);
  Held out;
  for (int game = 0; game < games; ++game) {
    const OrderSample sample = drawn.draw(static_cast<std::size_t>(looks.back()));
    std::vector<int> always(Games::players, 1);
    bool stopped = false;
    for (const int pairs : looks) {
      const std::vector<Estimate> estimates = at_look(sample, static_cast<std::size_t>(pairs), correction);
      for (std::size_t i = 0; i < Games::players; ++i) always[i] = always[i] != 0 && holds(estimates[i], i);
      if (stopped || !(narrow(estimates, width) || pairs == looks.back())) continue;
      stopped = true;
      if (pairs < looks.back()) ++out.stopped_early;
      for (std::size_t i = 0; i < Games::players; ++i) out.when_stopped += holds(estimates[i], i);
    }
    for (const int all : always) out.always += all;
  }
  out.when_stopped /= games * Games::players;
  out.always /= games * Games::players;
  return out;
}

TEST(OrderSample, HoldsTheShapleyValueAtEveryLook) {
  const std::size_t looks = order_looks(32, true).size();
  const Held corrected = held(looks, 0.7), naive = held(1, 0.7);
  RecordProperty("when_stopped", std::to_string(corrected.when_stopped));
  std::printf("stopped early in %d of 500; held when stopped %.3f, at every look %.3f; uncorrected %.3f, %.3f\n",
              corrected.stopped_early, corrected.when_stopped, corrected.always, naive.when_stopped, naive.always);
  EXPECT_GT(corrected.stopped_early, 50);
  EXPECT_LT(corrected.stopped_early, 500);
  // Six players of a game are not independent: the error of a share counts games alone.
  const double slack = 3 * std::sqrt(0.95 * 0.05 / 500);
  EXPECT_GT(corrected.when_stopped, 0.95 - slack);
  EXPECT_GT(corrected.always, 0.95 - slack);
  EXPECT_LT(naive.always, corrected.always);
}

}  // namespace
}  // namespace routescope::analysis
