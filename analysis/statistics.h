// What may be said of an effect measured on n sequences: an interval, a p value, and its adjustment for many slices.
// Everything is a pure function of the data and the seed.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace routescope {

struct Interval {
  double lower = 0, upper = 0;
};

/// Names one stream of random numbers. Results that must not share their noise get different parts.
struct RandomKey {
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
  std::uint64_t slice = 0;
};

inline constexpr double interval_level = 0.95;
inline constexpr int bootstrap_resamples = 10000;
inline constexpr int sign_flips = 19999;
inline constexpr int exact_sign_flip_n = 16;

/// The arithmetic mean; NaN of nothing.
double mean(std::span<const double> values);

/// Interval for the mean of the population that `values` are independent draws of: BCa bootstrap (Efron 1987),
/// resampling values, with the normal quantile widened to sqrt(n/(n-1)) t_{n-1} (Hesterberg 2015, "expanded"
/// percentiles), without which it is too narrow at small n. Equal values give a width of zero; fewer than two, NaN.
Interval bootstrap_interval(std::span<const double> values, const RandomKey& key, double level = interval_level,
                            int resamples = bootstrap_resamples);

/// Two-sided p value of the hypothesis that the values are symmetric about zero: the share of sign patterns whose sum
/// is at least as far from zero. All 2^n patterns for n <= exact_sign_flip_n; above, `flips` random ones and the
/// observed.
double sign_flip_test(std::span<const double> values, const RandomKey& key, int flips = sign_flips);

/// Holm's step-down adjustment. NaN stands for a test that was not made: it stays NaN and does not count.
std::vector<double> holm_adjust(std::span<const double> p_values);

/// Quantiles of the standard normal and of Student's t with whole degrees of freedom, for p in (0, 1).
double normal_quantile(double p);
double student_t_quantile(double p, int degrees_of_freedom);

}  // namespace routescope
