// Means over runs that share documents: intervals hold them whether runs differ or not.
#include "analysis/statistics/two_way.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <random>
#include <stdexcept>

namespace routescope::analysis {
namespace {

TEST(TwoWay, ByHand) {
  // Means of runs 2 and 4, of documents 1, 3, 5; residuals +1 0 -1 / -1 0 +1.
  const TwoWay both({{1, 2, 3}, {1, 4, 7}});
  EXPECT_DOUBLE_EQ(both.mean, 3);
  EXPECT_DOUBLE_EQ(both.of_runs, 2.0 / 2);
  EXPECT_DOUBLE_EQ(both.of_documents, 4.0 / 3);
  EXPECT_DOUBLE_EQ(both.of_both, 4.0 / 2 / 6);
  EXPECT_DOUBLE_EQ(both.degrees(), 49.0 / 9 / (1 + 16.0 / 9 / 2));
  const double runs = student_t_quantile(0.975, 1), documents = student_t_quantile(0.975, 2);
  EXPECT_DOUBLE_EQ(both.half_width(), std::sqrt(runs * runs + documents * documents));
  EXPECT_DOUBLE_EQ(two_way_mean({{1, 2, 3}, {1, 4, 7}}).ci.lower, 3 - both.half_width());
}

TEST(TwoWay, OneRunHasStudentsInterval) {
  const std::vector<double> values = {1, 2, 6};
  const TwoWay one({values});
  EXPECT_EQ(one.degrees(), 2);
  EXPECT_DOUBLE_EQ(one.half_width(), student_t_quantile(0.975, 2) * Sample(values).error);
  EXPECT_EQ(one.mean, 3);
}

TEST(TwoWay, WhatCannotBeSaid) {
  EXPECT_TRUE(std::isnan(two_way_mean({{1}, {2}}).ci.lower));
  EXPECT_TRUE(std::isnan(two_way_mean({{1, 2}, {2, nan}}).value));
  const Estimate equal = two_way_mean({{0.1, 0.1}, {0.1, 0.1}, {0.1, 0.1}});
  EXPECT_EQ(equal.ci.lower, 0.1);
  EXPECT_EQ(equal.ci.upper, 0.1);
  EXPECT_THROW(TwoWay({}), std::invalid_argument);
  EXPECT_THROW(TwoWay({{1, 2}, {1}}), std::invalid_argument);
}

TEST(TwoWay, IntervalsHoldTheMeanHoweverMuchRunsDiffer) {
  // Variances of the mean in units of what documents cause: of it, `share` from documents that are alike in all runs,
  // the rest from those that are not.
  std::mt19937_64 random(20261108);
  RecordProperty("seed", 20261108);
  std::normal_distribution<double> normal;
  constexpr std::size_t documents = 32;
  constexpr int repetitions = 2000;
  for (std::size_t runs : {3U, 5U}) {
    for (double of_runs : {0.0, 1.0, 100.0}) {
      for (double share : {0.0, 0.5, 0.95}) {
        const double count = static_cast<double>(runs), a = std::sqrt(of_runs * count),
                     b = std::sqrt(share * documents), e = std::sqrt((1 - share) * documents * count);
        int held = 0, satterthwaite = 0, by_runs = 0;
        double width = 0;
        for (int repetition = 0; repetition < repetitions; ++repetition) {
          std::vector<std::vector<double>> values(runs, std::vector<double>(documents));
          std::vector<double> own(documents);
          for (double& value : own) value = b * normal(random);
          for (std::vector<double>& run : values) {
            const double shift = a * normal(random);
            for (std::size_t d = 0; d < documents; ++d) run[d] = shift + own[d] + e * normal(random);
          }
          const TwoWay both(values);
          const double sum = std::sqrt(both.of_runs + both.of_documents), far = std::abs(both.mean);
          held += far <= both.half_width();
          satterthwaite += far <= student_t_quantile(0.975, both.degrees()) * sum;
          by_runs += far <= student_t_quantile(0.975, count - 1) * sum;
          width += both.half_width() / repetitions;
        }
        const auto percent = [&](int number) { return 100.0 * number / repetitions; };
        std::printf(
            "%zu runs, runs / documents %5.1f, alike %.2f: held %.1f %%, half width %.2f of 1.96 s.e.; "
            "Satterthwaite %.1f %%, t of R - 1 %.1f %%\n",
            runs, of_runs, share, percent(held), width / 1.96 / std::sqrt(1 + of_runs), percent(satterthwaite),
            percent(by_runs));
        const double error = 3 * std::sqrt(0.05 * 0.95 / repetitions);
        EXPECT_GE(held / double{repetitions}, 0.95 - error) << runs << " runs, " << of_runs << ", " << share;
        EXPECT_LE(held / double{repetitions}, 0.975 + error) << runs << " runs, " << of_runs << ", " << share;
      }
    }
  }
}

}  // namespace
}  // namespace routescope::analysis
