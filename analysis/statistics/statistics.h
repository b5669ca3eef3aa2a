// Statistics of effects that are measured on n sequences: intervals, p values, and their adjustment for many sets.
// Every function is a pure function of the data and the seed.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "analysis/statistics/random.h"

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

inline constexpr double interval_level = 0.95;
inline constexpr double significance = 0.05;  // of a family of tests
inline constexpr int bootstrap_resamples = 10000;
inline constexpr int sign_flips = 19999;
inline constexpr int exact_sign_flip_n = 16;

/// The arithmetic mean; of equal values exactly that value. NaN if there are no values.
double mean(std::span<const double> values);

/// The moments of at least two finite values that t statistics need. Equal values have an error of exactly 0, without
/// rounding.
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

/// The interval of any other statistic from its values on resamples: their quantiles at the normal levels of the
/// quantile of t with these degrees of freedom (Hesterberg 2015), so that normal resamples give Student's interval.
/// Resamples have to spread as the statistic does (resample_indices() with n - 1 draws, run_weights()). A level that
/// leaves fewer than `least_beyond` resamples outside is extrapolated: beyond, the distance from the median grows as
/// the normal quantile does, and the end may leave the range of the statistic. Values may be infinite. NaN values are
/// left out; NaN if no value is left or there is no degree of freedom.
Interval percentile_interval(std::span<const double> resampled, double degrees_of_freedom,
                             double level = interval_level);
inline constexpr double least_beyond = 5;

/// Two-sided p value of the hypothesis that the values are symmetric about zero: the share of sign patterns whose sum
/// is at least as far from zero. All 2^n patterns for n <= exact_sign_flip_n; above, `flips` random ones and the
/// observed.
double sign_flip_test(std::span<const double> values, const RandomKey& key, int flips = sign_flips);

/// Holm's step-down adjustment. NaN marks a test that was not made: it stays NaN and does not count.
std::vector<double> holm_adjust(std::span<const double> p_values);

/// One-sided p value of the hypothesis that the mean is at most `threshold`: the larger of two, that of the t
/// statistic, and that of it after Hall's correction. With values skewed to the left t alone errs too often
/// (analysis/README.md has the rates). The values have to be independent (document_values()). Equal values have
/// no scale; p is then 2^-n, the chance that all lie above the mean if both sides are equally likely, or 1. NaN for
/// fewer than two values, or if one is not finite.
double p_above(std::span<const double> values, double threshold = 0);

/// Two one-sided tests (Schuirmann 1987), each p_above(): the p value of the hypothesis that |mean| >= margin. It is
/// small where the mean is shown to lie within (-margin, margin). It speaks of the mean of what was drawn: a rare unit
/// that carries an effect may not be among n (p_share_within()).
double equivalence_test(std::span<const double> values, double margin);

/// Exact p value of the hypothesis that |x| < margin holds in at most `share` of the population: P(at least as many of
/// n as were observed), binomial with `share` in (0, 1). It assumes nothing but independent units. With all of n units
/// within, p is share^n: for a share of 90 % at 5 %, 29 units. NaN without values or if one is NaN.
double p_share_within(std::span<const double> values, double margin, double share);

/// Spearman's rank correlation; ties get their mean rank. Pairs with a NaN are left out. NaN for fewer than 3 pairs, or
/// if one side does not vary.
double rank_correlation(std::span<const double> a, std::span<const double> b);

/// `draws` indices of n units, with replacement. Means of n - 1 draws spread as the mean of n units does, s^2 / n;
/// those of n draws spread less.
std::vector<std::size_t> resample_indices(std::size_t n, std::size_t draws, const RandomKey& key, std::uint64_t number);

/// The weights of R runs in resample `number`: normal, of mean 1/R and sum 1. The variance of sum_r w_r x_r is s^2 / R,
/// that of the mean of the runs; few runs need t besides (TwoWay). (A resample of 3 runs with replacement would stay
/// within their range, which holds the mean only three times of four.) {1} for one run.
std::vector<double> run_weights(std::size_t runs, const RandomKey& key, std::uint64_t number);

/// P(X <= x) of the standard normal, and its inverse for p in (0, 1).
double normal_cdf(double x);
double normal_quantile(double p);
/// Twice the smaller one-sided p value (p_above()) of a mean between -margin and margin, at most 1; NaN for fewer than
/// two values.
double two_sided_p(std::span<const double> values, double margin = 0);

/// The ratio of two paired means and its interval (Fieller 1954): the values r at which the mean of numerator - r
/// denominator is not shown to differ from 0 by Student's t. NaN where the mean of the denominator is not shown to be
/// above 0, without which there is no such interval. [n] each.
Estimate ratio_of_means(std::span<const double> numerator, std::span<const double> denominator);

/// P(T <= t) of Student's t, NaN for NaN; and its inverse for p in (0, 1). Degrees of freedom may be infinite.
double student_t_cdf(double t, double degrees_of_freedom);
double student_t_quantile(double p, double degrees_of_freedom);

}  // namespace routescope::analysis
