// Intervals cover as often as they say, p values reject as often as they may, Holm's adjustment is Holm's.
#include "analysis/statistics/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace routescope::analysis {
namespace {

TEST(Statistics, QuantilesOfNormalAndStudentT) {
  // Tables: Abramowitz & Stegun 26.5 and 26.10, five figures.
  EXPECT_NEAR(normal_quantile(0.975), 1.95996, 5e-6);
  EXPECT_NEAR(normal_quantile(0.1), -1.28155, 5e-6);
  EXPECT_NEAR(student_t_quantile(0.975, 1), 12.7062, 5e-5);
  EXPECT_NEAR(student_t_quantile(0.975, 2), 4.30265, 5e-6);
  EXPECT_NEAR(student_t_quantile(0.975, 7), 2.36462, 5e-6);
  EXPECT_NEAR(student_t_quantile(0.975, 30), 2.04227, 5e-6);
  EXPECT_NEAR(student_t_quantile(0.05, 31), -1.69552, 5e-6);
}

/// How many of the intervals hold the truth.
template <class Draw>
int simulate(int repetitions, int n, double truth, const Draw& draw) {
  int covered = 0;
  for (int repetition = 0; repetition < repetitions; ++repetition) {
    std::vector<double> values(static_cast<std::size_t>(n));
    for (double& value : values) value = draw();
    const Interval interval = bootstrap_interval(values, {1, static_cast<std::uint64_t>(repetition), 0}, 0.95, 2000);
    covered += interval.lower <= truth && truth <= interval.upper;
  }
  return covered;
}

// Three standard deviations of a binomial share over the repetitions.
double margin(double share, double repetitions) {
  return 3 * std::sqrt(share * (1 - share) / repetitions);
}

TEST(Statistics, IntervalsOfNormalDataCoverAsOftenAsTheySay) {
  std::mt19937_64 random(20260101);
  RecordProperty("seed", 20260101);
  std::normal_distribution<double> normal(0.3, 2.0);
  constexpr int repetitions = 400;
  for (int n : {8, 32}) {
    const int covered = simulate(repetitions, n, 0.3, [&] { return normal(random); });
    EXPECT_NEAR(covered / double{repetitions}, 0.95, margin(0.95, repetitions)) << "n = " << n << ", seed 20260101";
  }
}

TEST(Statistics, IntervalsOfSkewedDataLoseLittleCoverage) {
  // No interval from 32 skewed values covers exactly 95 %. Over 20000 repetitions this one attains 94.5 % for
  // exponential and 90.8 % for lognormal data, where Student's attains 93.2 % and 88.1 %; the test holds it to its own
  // figures.
  std::mt19937_64 random(20260102);
  RecordProperty("seed", 20260102);
  std::exponential_distribution<double> exponential(1.0);
  std::lognormal_distribution<double> lognormal(0.0, 1.0);
  constexpr int repetitions = 400;
  const int mild = simulate(repetitions, 32, 1.0, [&] { return exponential(random); });
  EXPECT_NEAR(mild / double{repetitions}, 0.945, margin(0.945, repetitions)) << "seed 20260102";
  const int strong = simulate(repetitions, 32, std::exp(0.5), [&] { return lognormal(random); });
  EXPECT_NEAR(strong / double{repetitions}, 0.908, margin(0.908, repetitions)) << "seed 20260102";
}

TEST(Statistics, IntervalOfEqualValuesHasNoWidth) {
  const std::vector<double> zeros(32, 0.0), tenths(32, 0.1);
  EXPECT_EQ(bootstrap_interval(zeros, {1, 2, 3}).lower, 0.0);
  EXPECT_EQ(bootstrap_interval(zeros, {1, 2, 3}).upper, 0.0);
  EXPECT_EQ(bootstrap_interval(tenths, {1, 2, 3}).lower, 0.1);
  EXPECT_EQ(bootstrap_interval(tenths, {1, 2, 3}).upper, 0.1);
  EXPECT_EQ(sign_flip_test(zeros, {1, 2, 3}), 1.0);
}

TEST(Statistics, TooFewValuesGiveNoInterval) {
  EXPECT_TRUE(std::isnan(bootstrap_interval(std::vector<double>{1.0}, {}).lower));
  EXPECT_TRUE(std::isnan(bootstrap_interval({}, {}).upper));
  EXPECT_TRUE(std::isnan(bootstrap_interval(std::vector<double>{1.0, nan}, {}).upper));
  EXPECT_TRUE(std::isnan(sign_flip_test({}, {})));
}

TEST(Statistics, IntervalsAreAFunctionOfDataAndKey) {
  std::mt19937_64 random(7);
  std::normal_distribution<double> normal;
  std::vector<double> values(33);
  for (double& value : values) value = normal(random);
  const Interval first = bootstrap_interval(values, {1, 2, 3}), again = bootstrap_interval(values, {1, 2, 3});
  EXPECT_EQ(first.lower, again.lower);
  EXPECT_EQ(first.upper, again.upper);
  for (RandomKey other : {RandomKey{9, 2, 3}, RandomKey{1, 9, 3}, RandomKey{1, 2, 9}, RandomKey{1, 2, 3, 9}}) {
    EXPECT_NE(bootstrap_interval(values, other).lower, first.lower);
  }
  // Shifting and scaling the data moves the interval with it: the same resamples are drawn.
  std::vector<double> moved = values;
  for (double& value : moved) value = 4 * value + 1;
  EXPECT_NEAR(bootstrap_interval(moved, {1, 2, 3}).lower, 4 * first.lower + 1, 1e-12);
  EXPECT_LT(first.lower, mean(values));
  EXPECT_GT(first.upper, mean(values));
}

TEST(Statistics, ExactSignFlipTest) {
  // The 8 patterns of 1, 2, 3 have the sums +-6, +-4, +-2, 0, 0.
  EXPECT_DOUBLE_EQ(sign_flip_test(std::vector<double>{1, 2, 3}, {}), 2.0 / 8);
  EXPECT_DOUBLE_EQ(sign_flip_test(std::vector<double>{1, -2, 3}, {}), 6.0 / 8);
  EXPECT_DOUBLE_EQ(sign_flip_test(std::vector<double>{1, 2, -3}, {}), 1.0);
  EXPECT_DOUBLE_EQ(sign_flip_test(std::vector<double>(10, 0.1), {}), 2.0 / 1024);
}

TEST(Statistics, RandomSignFlipTestAgreesWithTheNormalLimit) {
  // 64 values of +-1 whose sum is 16: the exact two-sided binomial tail P(|X - 32| >= 8), X ~ Bin(64, 1/2).
  std::vector<double> values(64, 1.0);
  for (std::size_t i = 0; i < 24; ++i) values[i] = -1;
  double tail = 0;
  for (int k = 0; k <= 24; ++k) {
    tail += 2 * std::exp(std::lgamma(65) - std::lgamma(k + 1) - std::lgamma(65 - k) - 64 * std::log(2.0));
  }
  const double standard_error = std::sqrt(tail * (1 - tail) / sign_flips);
  EXPECT_NEAR(sign_flip_test(values, {1, 2, 3}), tail, 4 * standard_error);
  EXPECT_EQ(sign_flip_test(std::vector<double>(64, 1.0), {1, 2, 3}), 1.0 / (sign_flips + 1));
}

TEST(Statistics, SignFlipTestRejectsNoOftenerThanItMay) {
  std::mt19937_64 random(20260103);
  RecordProperty("seed", 20260103);
  std::student_t_distribution<double> symmetric(3);
  constexpr int repetitions = 1000;
  int rejected = 0;
  for (int repetition = 0; repetition < repetitions; ++repetition) {
    std::vector<double> values(20);
    for (double& value : values) value = symmetric(random);
    rejected += sign_flip_test(values, {1, static_cast<std::uint64_t>(repetition), 0}, 999) <= 0.05;
  }
  EXPECT_NEAR(rejected / double{repetitions}, 0.05, margin(0.05, repetitions)) << "seed 20260103";
}

TEST(Statistics, HolmOnAKnownExample) {
  // Sorted 0.005, 0.01, 0.03, 0.04 with multipliers 4, 3, 2, 1, then running maxima.
  const std::vector<double> adjusted = holm_adjust(std::vector<double>{0.01, 0.04, 0.03, 0.005});
  EXPECT_DOUBLE_EQ(adjusted[0], 0.03);
  EXPECT_DOUBLE_EQ(adjusted[1], 0.06);
  EXPECT_DOUBLE_EQ(adjusted[2], 0.06);
  EXPECT_DOUBLE_EQ(adjusted[3], 0.02);
}

TEST(Statistics, HolmSkipsTestsNotMadeAndStaysBelowOne) {
  const std::vector<double> adjusted = holm_adjust(std::vector<double>{nan, 0.2, nan, 0.6});
  EXPECT_TRUE(std::isnan(adjusted[0]));
  EXPECT_TRUE(std::isnan(adjusted[2]));
  EXPECT_DOUBLE_EQ(adjusted[1], 0.4);
  EXPECT_DOUBLE_EQ(adjusted[3], 0.6);
  EXPECT_DOUBLE_EQ(holm_adjust(std::vector<double>{0.7, 0.9})[0], 1.0);
}

TEST(Statistics, StudentsDistribution) {
  EXPECT_NEAR(student_t_cdf(0, 5), 0.5, 1e-15);
  EXPECT_NEAR(student_t_cdf(1, 1), 0.75, 1e-15);                                      // Cauchy
  EXPECT_NEAR(student_t_cdf(-std::sqrt(2.0), 2), 0.5 - 0.5 / std::sqrt(2.0), 1e-15);  // (1 + t / sqrt(2 + t^2)) / 2
  EXPECT_GE(student_t_cdf(-1e9, 63), 0);
}

TEST(Statistics, EquivalenceTest) {
  // Mean 1, standard error 1/2 over 4 values: t = (2 - 1) / (1/2) = 2 with 3 degrees of freedom, upper tail 0.069663.
  const std::vector<double> values = {1 - std::sqrt(1.5), 1, 1, 1 + std::sqrt(1.5)};
  EXPECT_NEAR(equivalence_test(values, 2), 0.069663, 1e-6);
  std::vector<double> negative = values;
  for (double& value : negative) value = -value;
  EXPECT_DOUBLE_EQ(equivalence_test(negative, 2), equivalence_test(values, 2));
  EXPECT_NEAR(equivalence_test(values, 1), 0.5, 1e-12);  // on the margin
  EXPECT_GT(equivalence_test(values, 0.5), 0.5);
  // Skewed to the right, the mean is more likely underestimated: less is shown against the upper margin.
  EXPECT_GT(equivalence_test(std::vector<double>{0, 0, 0, 1}, 1),
            equivalence_test(std::vector<double>{0, 0, 0, 1}, 1.1));
  EXPECT_GT(equivalence_test(std::vector<double>{0, 0, 0, 1}, 1), student_t_cdf(-3, 3));
  EXPECT_EQ(equivalence_test(std::vector<double>(5, 0.0), 0.01), 1.0 / 32);
  EXPECT_EQ(equivalence_test(std::vector<double>(32, 0.001), 0.01), std::exp2(-32));
  EXPECT_EQ(equivalence_test(std::vector<double>(5, 0.01), 0.01), 1.0);
  EXPECT_TRUE(std::isnan(equivalence_test(std::vector<double>{0.0}, 1)));
}

TEST(Statistics, EquivalenceIsDeclaredNoOftenerThanItMay) {
  std::mt19937_64 random(20260104);
  RecordProperty("seed", 20260104);
  std::normal_distribution<double> on_the_margin(-0.1, 0.2);
  constexpr int repetitions = 4000;
  int declared = 0;
  for (int repetition = 0; repetition < repetitions; ++repetition) {
    std::vector<double> values(32);
    for (double& value : values) value = on_the_margin(random);
    declared += equivalence_test(values, 0.1) < 0.05;
  }
  // The other margin, 5.7 standard errors away, takes next to nothing from 5 %.
  EXPECT_NEAR(declared / double{repetitions}, 0.05, margin(0.05, repetitions)) << "seed 20260104";
}

TEST(Statistics, EquivalenceOfSkewedValuesIsDeclaredNoOftenerThanItMay) {
  // The mean of exponential values is on the margin, 32 of them: README.md has 2.9 % at 5 % and 0.1 % at 5 % / 18 over
  // 40000 repetitions, where t alone has 9.7 and 2.0 %.
  std::mt19937_64 random(20260109);
  RecordProperty("seed", 20260109);
  std::exponential_distribution<double> exponential(1.0);
  constexpr int repetitions = 4000;
  int declared = 0, strictly = 0;
  for (int repetition = 0; repetition < repetitions; ++repetition) {
    std::vector<double> values(32);
    for (double& value : values) value = exponential(random);
    const double p = equivalence_test(values, 1);
    declared += p < 0.05;
    strictly += p < 0.05 / 18;
  }
  EXPECT_LE(declared / double{repetitions}, 0.05 + margin(0.05, repetitions)) << "seed 20260109";
  EXPECT_LE(strictly / double{repetitions}, 0.05 / 18 + margin(0.05 / 18, repetitions)) << "seed 20260109";
}

TEST(Statistics, RankCorrelation) {
  EXPECT_DOUBLE_EQ(rank_correlation(std::vector<double>{1, 2, 30}, std::vector<double>{-5, 0, 1}), 1);
  EXPECT_DOUBLE_EQ(rank_correlation(std::vector<double>{1, 2, 3, 4}, std::vector<double>{4, 3, 2, 1}), -1);
  EXPECT_DOUBLE_EQ(rank_correlation(std::vector<double>{1, 2, 3, 4}, std::vector<double>{1, 3, 2, 4}),
                   0.8);  // 1 - 6 * 2 / 60
  // Ranks 1.5 1.5 3 4 against 1 2 3 4: 4.5 / sqrt(4.5 * 5).
  EXPECT_DOUBLE_EQ(rank_correlation(std::vector<double>{7, 7, 8, 9}, std::vector<double>{1, 2, 3, 4}), std::sqrt(0.9));
  EXPECT_DOUBLE_EQ(rank_correlation(std::vector<double>{1, nan, 2, 3}, std::vector<double>{1, 0, 2, 3}), 1);
  EXPECT_TRUE(std::isnan(rank_correlation(std::vector<double>{1, 2}, std::vector<double>{1, 2})));
  EXPECT_TRUE(std::isnan(rank_correlation(std::vector<double>{1, 1, 1}, std::vector<double>{1, 2, 3})));
}

TEST(Statistics, ResamplesDrawAllUnitsAlikeAndDifferByNumberAndKey) {
  constexpr std::size_t n = 7, resamples = 5000;
  std::vector<double> drawn(n, 0.0);
  for (std::size_t b = 0; b < resamples; ++b) {
    for (std::size_t index : resample_indices(n, n, {1, 2, 3, 4}, b)) {
      ASSERT_LT(index, n);
      drawn[index] += 1;
    }
  }
  for (double count : drawn) EXPECT_NEAR(count, resamples, 4 * std::sqrt(resamples * (1 - 1.0 / n)));
  const auto first = resample_indices(64, 63, {1, 2, 3, 4}, 0);
  EXPECT_EQ(first.size(), 63U);
  EXPECT_EQ(resample_indices(64, 63, {1, 2, 3, 4}, 0), first);
  EXPECT_NE(resample_indices(64, 63, {1, 2, 3, 4}, 1), first);
  for (RandomKey other : {RandomKey{9, 2, 3, 4}, RandomKey{1, 9, 3, 4}, RandomKey{1, 2, 9, 4}, RandomKey{1, 2, 3, 9}})
    EXPECT_NE(resample_indices(64, 63, other, 0), first);
}

TEST(Statistics, PercentilesAreWidenedForFewDegrees) {
  std::vector<double> resampled;
  for (int i = 1; i < 1000; ++i) resampled.push_back(1000 - i);  // the k-th smallest stands at level k / 1000
  // t_9(0.975) = 2.26216, of which the normal's lower tail is 0.011844; for many degrees 0.025.
  EXPECT_NEAR(percentile_interval(resampled, 9).lower, 11.844, 1e-2);
  EXPECT_NEAR(percentile_interval(resampled, 9).upper, 1000 - 11.844, 1e-2);
  EXPECT_NEAR(percentile_interval(resampled, 1e9).lower, 25, 1e-2);
  // t_2(0.975) = 4.30265: beyond the fifth resample, at -2.57583, distances from the median grow in proportion.
  EXPECT_NEAR(percentile_interval(resampled, 2).lower, 500 - 495 * 4.30265 / 2.57583, 1e-2);
  EXPECT_NEAR(percentile_interval(resampled, 2).upper, 500 + 495 * 4.30265 / 2.57583, 1e-2);
  const std::vector<double> equal(1000, 3.0);
  EXPECT_EQ(percentile_interval(equal, 1).lower, 3);
  resampled.assign(100, std::numeric_limits<double>::infinity());
  resampled.insert(resampled.end(), {1, 2, 3, 4, nan});
  EXPECT_EQ(percentile_interval(resampled, 1e9).upper, std::numeric_limits<double>::infinity());
  resampled.assign(200, std::numeric_limits<double>::infinity());
  for (int i = 1; i < 10; ++i) resampled.push_back(i);
  EXPECT_NEAR(percentile_interval(resampled, 1e9).lower, 5.25, 1e-2);  // at 0.025 * (209 + 1)
  EXPECT_TRUE(std::isnan(percentile_interval(std::vector<double>{nan}, 10).lower));
  EXPECT_TRUE(std::isnan(percentile_interval(std::vector<double>{1, 2, 3}, 0).lower));
}

TEST(Statistics, WeightedRunsSpreadAsTheirMeanDoes) {
  // Three runs at 1, 2 and 6: mean 3, standard error sqrt(7 / 3).
  constexpr std::size_t resamples = 20000;
  double sum = 0, squares = 0;
  for (std::size_t b = 0; b < resamples; ++b) {
    const std::vector<double> weights = run_weights(3, {1}, b);
    ASSERT_NEAR(weights[0] + weights[1] + weights[2], 1, 1e-12);
    const double deviation = weights[0] + 2 * weights[1] + 6 * weights[2] - 3;
    sum += deviation;
    squares += deviation * deviation;
  }
  EXPECT_NEAR(sum / resamples, 0, 4 * std::sqrt(7.0 / 3 / resamples));
  EXPECT_NEAR(squares / resamples, 7.0 / 3, 4 * 7.0 / 3 * std::sqrt(2.0 / resamples));
  EXPECT_EQ(run_weights(1, {1}, 5), std::vector<double>{1});
}

TEST(RatioOfMeans, IsFiellersInterval) {
  // By hand: means 2 and 4, variances of the means 1/3 and 4/3, covariance 1/3, t_2(0.975) = 4.302653.
  const Estimate none = ratio_of_means(std::vector<double>{1, 2, 3}, std::vector<double>{2, 6, 4});
  EXPECT_TRUE(std::isnan(none.value)) << "16 < t^2 4/3: the denominator may be 0";
  const std::vector<double> a{1, 2, 3, 2}, b{8, 10, 12, 10};
  const Estimate ratio = ratio_of_means(a, b);
  EXPECT_DOUBLE_EQ(ratio.value, 0.2);
  for (double bound : {ratio.ci.lower, ratio.ci.upper}) {  // where a - r b differs from 0 by exactly t standard errors
    std::vector<double> difference;
    for (std::size_t i = 0; i < 4; ++i) difference.push_back(a[i] - bound * b[i]);
    double squares = 0;
    for (double value : difference) squares += (value - mean(difference)) * (value - mean(difference));
    EXPECT_NEAR(std::abs(mean(difference)) / std::sqrt(squares / 12), student_t_quantile(0.975, 3), 1e-9);
  }
  EXPECT_TRUE(std::isnan(ratio_of_means(std::vector<double>{1}, std::vector<double>{2}).value));
  EXPECT_TRUE(std::isnan(ratio_of_means(std::vector<double>{1, 1}, std::vector<double>{-2, -2}).value));
  EXPECT_TRUE(std::isnan(ratio_of_means(std::vector<double>{nan, 1}, std::vector<double>{2, 2}).value));
}

}  // namespace
}  // namespace routescope::analysis
