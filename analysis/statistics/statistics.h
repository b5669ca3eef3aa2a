// Statistics of effects that are measured on n sequences: intervals, p values, and their adjustment for many sets.
// Every function is a pure function of the data and the seed.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace routescope::analysis {

inline constexpr double nan = std::numeric_limits<double>::quiet_NaN();

struct Interval {
  double lower = 0, upper = 0;
};

/// A value with its 95 % interval. NaN: not measured.
struct Estimate {
  double value = nan;
  Interval ci{nan, nan};
};

/// Names one stream of random numbers. Results that must not share their noise get different keys: `slice` counts the
/// sets of a probe, `what` the quantities measured of each (its effect under every ablation, its excess, ...).
struct RandomKey {
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
  std::uint64_t slice = 0;
  std::uint64_t what = 0;
};

inline constexpr double interval_level = 0.95;
inline constexpr double significance = 0.05;  // of a family of tests
inline constexpr int bootstrap_resamples = 10000;
inline constexpr int sign_flips = 19999;
inline constexpr int exact_sign_flip_n = 16;

/// The arithmetic mean. NaN if there are no values.
double mean(std::span<const double> values);

/// The moments of at least two finite values that t statistics need. Equal values have exactly that value as mean and
/// an error of exactly 0, without rounding.
struct Sample {
  double n = 0;
  double mean = 0, error = 0;  // error: of the mean, s / sqrt(n)
  double skew = 0;             // skewness / sqrt(n), times an allowance for the skewness that few values do not show

  explicit Sample(std::span<const double> values);

  /// A t statistic after Hall's (1992) transformation, which removes its skewness; and the inverse.
  double corrected(double t) const;
  double uncorrected(double t) const;
};

/// Interval for the mean of the population from which `values` were drawn independently: BCa bootstrap (Efron 1987)
/// over the values. The normal quantile is widened to sqrt(n/(n-1)) t_{n-1} ("expanded" percentiles, Hesterberg 2015);
/// otherwise the interval is too narrow at small n. Equal values give a width of zero; fewer than two values give NaN.
Interval bootstrap_interval(std::span<const double> values, const RandomKey& key, double level = interval_level,
                            int resamples = bootstrap_resamples);

/// The interval of any other statistic from its values on resamples of n units: their quantiles, widened as above but
/// without BCa's corrections. Values may be infinite. NaN values are left out; NaN if no value is left.
Interval percentile_interval(std::span<const double> resampled, std::size_t n, double level = interval_level);

/// Two-sided p value of the hypothesis that the values are symmetric about zero: the share of sign patterns whose sum
/// is at least as far from zero. All 2^n patterns for n <= exact_sign_flip_n; above, `flips` random ones and the
/// observed.
double sign_flip_test(std::span<const double> values, const RandomKey& key, int flips = sign_flips);

/// Holm's step-down adjustment. NaN marks a test that was not made: it stays NaN and does not count.
std::vector<double> holm_adjust(std::span<const double> p_values);

/// Two one-sided t tests (Schuirmann 1987): the p value of the hypothesis that |mean| >= margin. It is small where the
/// mean is shown to lie within (-margin, margin). Each test takes the larger of two p values: that of t, and that of t
/// after Hall's correction. With skewed values t alone errs too often (analysis/README.md has the rates). Equal values
/// have no scale; the p value is then 2^-n, the chance that all lie on one side of the mean if both sides are equally
/// likely. NaN for fewer than two values.
double equivalence_test(std::span<const double> values, double margin);

/// Spearman's rank correlation; ties get their mean rank. Pairs with a NaN are left out. NaN for fewer than 3 pairs, or
/// if one side does not vary.
double rank_correlation(std::span<const double> a, std::span<const double> b);

/// The indices of resample `number` of n units, with replacement.
std::vector<std::size_t> resample_indices(std::size_t n, const RandomKey& key, std::uint64_t number);

/// The weights of R runs in resample `number`. They sum to 1: 1/R plus a multivariate t of R - 1 degrees of freedom.
/// Weighted means of normal values then spread over resamples as Student's interval of their mean does. (A resample of
/// 3 runs with replacement stays within their range, which holds the mean only three times of four.) {1} for one run.
std::vector<double> run_weights(std::size_t runs, const RandomKey& key, std::uint64_t number);

/// P(X <= x) of the standard normal, and its inverse for p in (0, 1).
double normal_cdf(double x);
double normal_quantile(double p);
/// P(T <= t) of Student's t, NaN for NaN; and its inverse for p in (0, 1).
double student_t_cdf(double t, int degrees_of_freedom);
double student_t_quantile(double p, int degrees_of_freedom);

}  // namespace routescope::analysis
