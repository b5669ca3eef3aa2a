// Confidence sequences hold the mean at every n at once, and are what the algebra says.
#include "analysis/statistics/sequential.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <random>

namespace routescope::analysis {
namespace {

/// n values with the mean and standard deviation given, symmetric about the mean.
std::vector<double> symmetric_values(int n, double centre, double deviation) {
  std::vector<double> values;
  double squares = 0;
  for (int i = 0; i < n; ++i) {
    values.push_back(i - 0.5 * (n - 1));
    squares += values.back() * values.back();
  }
  for (double& value : values) value = centre + deviation * value / std::sqrt(squares / (n - 1));
  return values;
}

TEST(Sequential, EvidenceIsTheRatioOfTheMixedLikelihoods) {
  // The definition, by quadrature over the effect d (a normal prior) and the standard deviation s (ds / s), instead of
  // the closed form. Without skewness the correction changes nothing.
  const std::vector<double> values = symmetric_values(20, 0.9, 1.3);
  const double n = 20, scale = 0.7;
  double sum = 0, squares = 0;
  for (double value : values) {
    sum += value;
    squares += value * value;
  }
  const auto likelihood = [&](double d, double log_s) {
    const double s = std::exp(log_s);
    return std::exp(-n * log_s - 0.5 * (squares / (s * s) - 2 * d * sum / s + n * d * d));
  };
  double mixed = 0, none = 0;
  constexpr double dx = 0.01;  // smooth, decaying integrands: the sum converges faster than any power of dx
  for (double log_s = -2; log_s < 4; log_s += dx) {
    none += likelihood(0, log_s) * dx;
    for (double d = -5; d < 5; d += dx) {
      const double prior = std::exp(-0.5 * d * d / (scale * scale)) / (scale * std::sqrt(2 * std::acos(-1.0)));
      mixed += likelihood(d, log_s) * prior * dx * dx;
    }
  }
  EXPECT_NEAR(sequential_p_value(values, 20, scale) * mixed / none, 1, 1e-6);
}

TEST(Sequential, TheIntervalHoldsTheMeansThatThePValueDoesNotReject) {
  for (bool skewed : {false, true}) {
    std::mt19937_64 random(3);
    std::vector<double> values;
    for (int i = 0; i < 40; ++i) {
      const double value = std::normal_distribution<double>()(random);
      values.push_back(skewed ? std::exp(value) : value);
    }
    const Interval interval = confidence_sequence(values);
    for (double edge : {interval.lower, interval.upper}) {
      std::vector<double> shifted = values;
      for (double& value : shifted) value -= edge;
      EXPECT_NEAR(sequential_p_value(shifted, 40), 0.05, 1e-9) << "skewed " << skewed << ", edge " << edge;
    }
  }
}

TEST(Sequential, IntervalsFollowTheUnit) {
  std::mt19937_64 random(4);
  std::vector<double> values, moved;
  for (int i = 0; i < 30; ++i) {
    values.push_back(std::exponential_distribution<double>()(random));
    moved.push_back(-1e-3 * values.back() + 7);
  }
  const Interval one = confidence_sequence(values), other = confidence_sequence(moved);
  EXPECT_NEAR(other.lower, -1e-3 * one.upper + 7, 1e-12);
  EXPECT_NEAR(other.upper, -1e-3 * one.lower + 7, 1e-12);
  const double right = one.upper - mean(values), left = mean(values) - one.lower;
  EXPECT_GT(right, 1.1 * left);  // skewed to the right: there is more to be feared above
}

TEST(Sequential, NothingIsSaidOfTooFew) {
  const double infinity = std::numeric_limits<double>::infinity();
  const std::vector<double> few = symmetric_values(sequential_least_n - 1, 5, 1);
  EXPECT_EQ(confidence_sequence(few).lower, -infinity);
  EXPECT_EQ(confidence_sequence(few).upper, infinity);
  EXPECT_EQ(sequential_p_value(few, 1), 1.0);
  EXPECT_EQ(sequential_p_value({}, 1), 1.0);
  // So strict a level that 16 values cannot reach it.
  EXPECT_EQ(confidence_sequence(symmetric_values(16, 5, 1), 1 - 1e-12).upper, infinity);
  std::vector<double> broken = symmetric_values(32, 0, 1);
  broken[3] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(std::isnan(confidence_sequence(broken).lower));
  EXPECT_TRUE(std::isnan(sequential_p_value(broken, 8)));
}

TEST(Sequential, EqualValuesHaveNoWidth) {
  const std::vector<double> zeros(16, 0.0), tenths(16, 0.1);
  EXPECT_EQ(confidence_sequence(zeros).lower, 0.0);
  EXPECT_EQ(confidence_sequence(zeros).upper, 0.0);
  EXPECT_EQ(confidence_sequence(tenths).lower, 0.1);
  EXPECT_EQ(confidence_sequence(tenths).upper, 0.1);
  EXPECT_EQ(sequential_p_value(zeros, 8), 1.0);
  // (1 + n g)^(-(n - 1) / 2): all that n values can say.
  EXPECT_NEAR(std::log(sequential_p_value(tenths, 16, 0.5)), -7.5 * std::log(5.0), 1e-9);
}

TEST(Sequential, LooksAddEvidenceAndNeverTakeItBack) {
  std::mt19937_64 random(5);
  std::vector<double> values;
  for (int i = 0; i < 64; ++i) values.push_back(std::normal_distribution<double>(i < 32 ? 1.0 : -1.0)(random));
  EXPECT_LT(sequential_p_value(std::span(values).first(32), 8), 0.01);
  EXPECT_LE(sequential_p_value(values, 8), sequential_p_value(std::span(values).first(32), 8));
  EXPECT_GT(sequential_p_value(values, 64), 0.5);  // a single look, after it has gone
}

/// Of how many runs the interval misses the mean, zero, at some n up to 256: at 95 %, and at 95 % of 18 at once.
struct Missed {
  int one = 0, of_18 = 0;
};
Missed count_missed(const std::function<double()>& draw, int repetitions) {
  Missed missed;
  for (int repetition = 0; repetition < repetitions; ++repetition) {
    std::vector<double> values;
    bool one = true, of_18 = true;
    for (int n = 1; n <= 256 && (one || of_18); ++n) {
      values.push_back(draw());
      // From 64 values on every 4th n: hardly anything happens in between, and it is these n that cost time.
      if (n > 64 && n % 4 != 0) continue;
      const Interval interval = confidence_sequence(values), strict = confidence_sequence(values, 1 - 0.05 / 18);
      one = one && interval.lower <= 0 && 0 <= interval.upper;
      of_18 = of_18 && strict.lower <= 0 && 0 <= strict.upper;
    }
    missed.one += !one;
    missed.of_18 += !of_18;
  }
  return missed;
}

TEST(Sequential, HoldsTheMeanAtAllNAtOnce) {
  std::mt19937_64 random(20260105);
  RecordProperty("seed", 20260105);
  const auto uniform = [&] { return static_cast<double>(random() >> 11) * 0x1p-53; };
  const auto normal = [&] { return std::normal_distribution<double>()(random); };
  struct Case {
    const char* name;
    std::function<double()> draw;  // of mean zero
    double strict = 0.05 / 18;     // the largest share of misses at the level of 18
  };
  const Case cases[] = {
      {"normal", normal},
      {"exponential", [&] { return -std::log1p(-uniform()) - 1; }},
      {"lognormal, sigma 0.5", [&] { return std::exp(0.5 * normal()) - std::exp(0.125); }},
      {"lognormal, sigma 1", [&] { return std::exp(normal()) - std::exp(0.5); }},
      {"Student, 3 degrees of freedom", [&] { return std::student_t_distribution<double>(3)(random); }},
      {"+1 or -1", [&] { return uniform() < 0.5 ? 1.0 : -1.0; }},
      {"1 in a fifth of cases, else 0", [&] { return (uniform() < 0.2 ? 1.0 : 0.0) - 0.2; },
       0.05 / 18 + std::pow(0.8, 16)},  // the chance that 16 are equal, which have an interval without width
  };
  constexpr int repetitions = 2000;
  // Of a binomial count, three standard deviations above what is claimed.
  const auto most = [](double share) { return repetitions * share + 3 * std::sqrt(repetitions * share * (1 - share)); };
  for (const Case& one : cases) {
    const Missed missed = count_missed(one.draw, repetitions);
    std::printf("%-32s %.2f %%  %.2f %%\n", one.name, 100 - 100.0 * missed.one / repetitions,
                100 - 100.0 * missed.of_18 / repetitions);
    EXPECT_LE(missed.one, most(0.05)) << one.name << ", seed 20260105";
    EXPECT_LE(missed.of_18, most(one.strict)) << one.name << ", seed 20260105";
  }
  // And where the claim ends: one value in twenty carries the mean, and of 16 often none is that one.
  const Missed rare = count_missed([&] { return (uniform() < 0.05 ? 1.0 : 0.0) - 0.05; }, 400);
  std::printf("%-32s %.2f %%\n", "1 in a twentieth, else 0", 100 - 100.0 * rare.one / 400);
  EXPECT_GT(rare.one, 0.3 * 400);  // 0.95^16 = 44 % start with 16 equal values
}

}  // namespace
}  // namespace routescope::analysis
