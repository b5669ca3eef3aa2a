// What may be said of an effect measured on n sequences: an interval, a p value, and its adjustment for many slices.
// Everything is a pure function of the data and the seed.
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

/// With its 95 % interval. NaN: not measured.
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
inline constexpr int bootstrap_resamples = 10000;
inline constexpr int sign_flips = 19999;
inline constexpr int exact_sign_flip_n = 16;

/// The arithmetic mean; NaN of nothing.
double mean(std::span<const double> values);

/// What t statistics of at least two finite values are made of. Equal values: that value and no error, whatever
/// rounding makes of their mean.
struct Sample {
  double n = 0;
  double mean = 0, error = 0;  // error: of the mean, s / sqrt(n)
  double skew = 0;             // skewness / sqrt(n), times an allowance for what few values do not show of it

  explicit Sample(std::span<const double> values);

  /// A t statistic after Hall's (1992) transformation, which takes its skewness away; and the inverse.
  double corrected(double t) const;
  double uncorrected(double t) const;
};

/// Interval for the mean of the population that `values` are independent draws of: BCa bootstrap (Efron 1987),
/// resampling values, with the normal quantile widened to sqrt(n/(n-1)) t_{n-1} (Hesterberg 2015, "expanded"
/// percentiles), without which it is too narrow at small n. Equal values give a width of zero; fewer than two, NaN.
Interval bootstrap_interval(std::span<const double> values, const RandomKey& key, double level = interval_level,
                            int resamples = bootstrap_resamples);

/// The interval of any other statistic from its values on resamples of n units: their quantiles, widened as above
/// (without BCa's corrections). Values may be infinite; NaN ones are left out; without any left, NaN.
Interval percentile_interval(std::span<const double> resampled, std::size_t n, double level = interval_level);

/// Two-sided p value of the hypothesis that the values are symmetric about zero: the share of sign patterns whose sum
/// is at least as far from zero. All 2^n patterns for n <= exact_sign_flip_n; above, `flips` random ones and the
/// observed.
double sign_flip_test(std::span<const double> values, const RandomKey& key, int flips = sign_flips);

/// Holm's step-down adjustment. NaN stands for a test that was not made: it stays NaN and does not count.
std::vector<double> holm_adjust(std::span<const double> p_values);

/// An interval that holds the mean at every n at once (anytime-valid), however the moment to stop is chosen: the
/// values' t statistic against a normal mixture over effect sizes of scale `effect_scale` standard deviations (Lai
/// 1976; Wang & Ramdas 2023), which is exact for normal values of any variance; and, to be safe with skewed ones,
/// widened to hold what the same says of the t statistic after Hall's (1992) correction for skewness. README.md has its
/// coverage. Infinite for fewer than `sequential_least_n` values or as long as nothing can be said, NaN where a value
/// is not finite. Equal values have no width. The scale decides what is quickly decided, not whether the interval
/// holds: 0.7 is within a tenth of the best there is for effects and margins of 0.4 to 2 standard deviations among 18
/// sets.
inline constexpr double sequential_effect_scale = 0.7;
inline constexpr int sequential_least_n = 16;
Interval confidence_sequence(std::span<const double> values, double level = interval_level,
                             double effect_scale = sequential_effect_scale);
/// The p value that goes with it: 1 / the greatest evidence so far that the mean is not zero, over looks after every
/// `look_every` values and after the last; valid at any stopping time. 1 before the first look.
double sequential_p_value(std::span<const double> values, std::int64_t look_every,
                          double effect_scale = sequential_effect_scale);

/// Two one-sided t tests (Schuirmann 1987): the p value of the hypothesis that |mean| >= margin. Small where the mean
/// is shown to lie within (-margin, margin). Each is the larger of the p values of t and of t after Hall's correction,
/// as above, since t alone errs too often with skewed values; README.md has how often. Equal values give t no scale:
/// then 2^-n, the chance that all lie on one side of their mean where both sides are as likely. NaN for fewer than two.
double equivalence_test(std::span<const double> values, double margin);

/// Spearman's rank correlation; ties get their mean rank. NaN for fewer than 3 pairs, or where one side does not vary.
/// Pairs with a NaN are left out.
double rank_correlation(std::span<const double> a, std::span<const double> b);

/// The indices of resample `number` of n units, with replacement.
std::vector<std::size_t> resample_indices(std::size_t n, const RandomKey& key, std::uint64_t number);

/// The weights of R runs in resample `number`, which sum to 1: 1/R and a multivariate t of R - 1 degrees of freedom,
/// such that weighted means of normal values spread over resamples as their mean's Student interval does (drawing 3
/// runs with replacement cannot leave their range, which holds the mean three times of four). {1} for one run.
std::vector<double> run_weights(std::size_t runs, const RandomKey& key, std::uint64_t number);

/// Of the standard normal and of Student's t with whole degrees of freedom, for p in (0, 1).
double normal_quantile(double p);
double student_t_quantile(double p, int degrees_of_freedom);
/// P(T <= t).
double student_t_cdf(double t, int degrees_of_freedom);

}  // namespace routescope::analysis
