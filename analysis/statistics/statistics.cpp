#include "analysis/statistics/statistics.h"

#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <boost/math/distributions/normal.hpp>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

namespace routescope::analysis {
namespace {

// A few tens of values show less skewness than their distribution has (of a lognormal one, a third); the correction is
// made for this many times the sample's: the least factor with which no one-sided test of README.md's distributions
// errs more often than it may at 32 values.
constexpr double skewness_allowance = 2;

// Linear between order statistics; the k-th of n stands at level k / (n + 1).
double quantile_of_sorted(std::span<const double> sorted, double level) {
  const double position =
      std::clamp(level * static_cast<double>(sorted.size() + 1) - 1, 0.0, static_cast<double>(sorted.size() - 1));
  const auto index = static_cast<std::size_t>(position);
  if (index + 1 >= sorted.size()) return sorted.back();
  // Between an infinite one and its neighbour there is no line.
  const double below_it = sorted[index], above_it = sorted[index + 1], part = position - static_cast<double>(index);
  if (std::isinf(below_it) || std::isinf(above_it)) return part < 0.5 ? below_it : above_it;
  return std::lerp(below_it, above_it, part);
}

bool all_finite(std::span<const double> values) {
  return std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); });
}

/// Ranks from 1; values that are equal get the mean of theirs.
std::vector<double> ranks_of(std::span<const double> values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (std::size_t begin = 0; begin < order.size();) {
    std::size_t end = begin;
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    for (std::size_t i = begin; i < end; ++i) ranks[order[i]] = 0.5 * static_cast<double>(begin + 1 + end);
    begin = end;
  }
  return ranks;
}

}  // namespace

double normal_cdf(double x) {
  return boost::math::cdf(boost::math::normal(), x);
}

double normal_quantile(double p) {
  return boost::math::quantile(boost::math::normal(), p);
}

double two_sided_p(std::span<const double> values, double margin) {
  std::vector<double> negative;
  for (double value : values) negative.push_back(-value);
  const double above = p_above(values, margin), below = p_above(negative, margin);
  return std::isnan(above) || std::isnan(below) ? nan : std::min(1.0, 2 * std::min(above, below));
}

Estimate ratio_of_means(std::span<const double> numerator, std::span<const double> denominator) {
  const auto n = static_cast<double>(numerator.size());
  if (numerator.size() < 2) return {};
  const double a = mean(numerator), b = mean(denominator);
  double aa = 0, ab = 0, bb = 0;  // variances and covariance of the means
  for (std::size_t i = 0; i < numerator.size(); ++i) {
    const double x = numerator[i] - a, y = denominator[i] - b;
    aa += x * x / (n * (n - 1));
    ab += x * y / (n * (n - 1));
    bb += y * y / (n * (n - 1));
  }
  const double t = student_t_quantile(0.5 + interval_level / 2, n - 1), tt = t * t;
  // (a - r b)^2 <= t^2 (aa - 2 r ab + r^2 bb): a quadratic in r, whose solutions are an interval where b^2 > t^2 bb.
  const double square = b * b - tt * bb, linear = a * b - tt * ab, constant = a * a - tt * aa;
  if (!(b > 0) || !(square > 0)) return {};
  const double root = std::sqrt(std::fmax(linear * linear - square * constant, 0));
  return {a / b, {(linear - root) / square, (linear + root) / square}};
}

double student_t_cdf(double t, double degrees_of_freedom) {
  return std::isnan(t) ? nan : boost::math::cdf(boost::math::students_t(degrees_of_freedom), t);
}

double student_t_quantile(double p, double degrees_of_freedom) {
  return boost::math::quantile(boost::math::students_t(degrees_of_freedom), p);
}

double mean(std::span<const double> values) {
  if (values.empty()) return nan;
  if (std::all_of(values.begin(), values.end(), [&](double v) { return v == values.front(); })) return values.front();
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

Sample::Sample(std::span<const double> values)
    : n(static_cast<double>(values.size())), mean(routescope::analysis::mean(values)) {
  const auto [smallest, largest] = std::minmax_element(values.begin(), values.end());
  if (*smallest == *largest) return;
  double squares = 0, cubes = 0;
  for (double value : values) {
    const double deviation = value - mean;
    squares += deviation * deviation;
    cubes += deviation * deviation * deviation;
  }
  error = std::sqrt(squares / (n - 1) / n);
  skew = skewness_allowance * cubes / (squares * std::sqrt(squares));
}

double Sample::corrected(double t) const {
  return t + skew * t * t / 3 + skew * skew * t * t * t / 27 + skew / 6;
}

double Sample::uncorrected(double t) const {
  return std::abs(skew) < 1e-9 ? t : 3 / skew * (std::cbrt(1 + skew * (t - skew / 6)) - 1);
}

Interval bootstrap_interval(std::span<const double> values, const RandomKey& key, double level, int resamples) {
  const std::size_t n = values.size();
  if (n < 2 || !all_finite(values)) return {nan, nan};
  const auto [smallest, largest] = std::minmax_element(values.begin(), values.end());
  if (*smallest == *largest) return {*smallest, *largest};

  const double centre = mean(values);
  std::mt19937_64 random = generator(key, Use::bootstrap);
  std::vector<double> means(static_cast<std::size_t>(resamples));
  for (double& resampled : means) {
    double sum = 0;
    for (std::size_t i = 0; i < n; i += 2) {
      const std::uint64_t bits = random();
      sum += values[below(static_cast<std::uint32_t>(bits), n)];
      if (i + 1 < n) sum += values[below(static_cast<std::uint32_t>(bits >> 32), n)];
    }
    resampled = sum / static_cast<double>(n);
  }
  std::sort(means.begin(), means.end());

  // Bias correction: where the estimate stands among the resampled ones, ties counted half.
  const auto [first_equal, first_above] = std::equal_range(means.begin(), means.end(), centre);
  const double count = static_cast<double>(means.size());
  const double share =
      (static_cast<double>(first_equal - means.begin()) + 0.5 * static_cast<double>(first_above - first_equal)) / count;
  const double z0 = normal_quantile(std::clamp(share, 0.5 / count, 1 - 0.5 / count));
  // Acceleration: the jackknife's, which for a mean needs the second and third central moments only.
  double second = 0, third = 0;
  for (double value : values) {
    const double deviation = value - centre;
    second += deviation * deviation;
    third += deviation * deviation * deviation;
  }
  const double acceleration = third / (6 * second * std::sqrt(second));

  const double units = static_cast<double>(n);
  const double wide = std::sqrt(units / (units - 1)) * student_t_quantile(0.5 + 0.5 * level, units - 1);
  const auto end = [&](double z) {
    // A mean's acceleration is below 1/6 and `wide` shrinks as n grows, so the denominator only nears zero for a z0
    // that no resampling of a mean produces.
    const double denominator = std::max(1 - acceleration * (z0 + z), 0.05);
    return quantile_of_sorted(means, normal_cdf(z0 + (z0 + z) / denominator));
  };
  return {end(-wide), end(wide)};
}

Interval percentile_interval(std::span<const double> resampled, double degrees_of_freedom, double level) {
  std::vector<double> sorted;
  for (double value : resampled) {
    if (!std::isnan(value)) sorted.push_back(value);
  }
  if (sorted.empty() || !(degrees_of_freedom > 0)) return {nan, nan};
  std::sort(sorted.begin(), sorted.end());
  const double wide = student_t_quantile(0.5 + 0.5 * level, degrees_of_freedom);
  const double reached =
      std::min(wide, -normal_quantile(std::min(0.4, least_beyond / static_cast<double>(sorted.size() + 1))));
  const double median = quantile_of_sorted(sorted, 0.5);
  const auto end = [&](double side) {
    const double value = quantile_of_sorted(sorted, normal_cdf(side * reached));
    return reached == wide || value == median ? value : median + wide / reached * (value - median);
  };
  return {end(-1), end(1)};
}

double sign_flip_test(std::span<const double> values, const RandomKey& key, int flips) {
  const std::size_t n = values.size();
  if (n == 0 || !all_finite(values)) return nan;
  double sum = 0, magnitude = 0;
  for (double value : values) {
    sum += value;
    magnitude += std::abs(value);
  }
  // Patterns that tie with the observed one must count as ties whatever the order of summation.
  const double threshold =
      std::abs(sum) - static_cast<double>(n + 1) * std::numeric_limits<double>::epsilon() * magnitude;
  const auto as_extreme = [&](double flipped) { return std::abs(flipped) >= threshold; };

  if (n <= static_cast<std::size_t>(exact_sign_flip_n)) {
    std::uint64_t extreme = 0;
    const std::uint64_t patterns = std::uint64_t{1} << n;
    for (std::uint64_t pattern = 0; pattern < patterns; ++pattern) {
      double flipped = 0;
      for (std::size_t i = 0; i < n; ++i) flipped += (pattern >> i & 1) ? -values[i] : values[i];
      extreme += as_extreme(flipped);
    }
    return static_cast<double>(extreme) / static_cast<double>(patterns);
  }
  std::mt19937_64 random = generator(key, Use::sign_flip);
  std::int64_t extreme = 1;
  for (int flip = 0; flip < flips; ++flip) {
    double flipped = 0;
    std::uint64_t signs = 0;
    for (std::size_t i = 0; i < n; ++i) {
      if (i % 64 == 0) signs = random();
      flipped += (signs >> (i % 64) & 1) ? -values[i] : values[i];
    }
    extreme += as_extreme(flipped);
  }
  return static_cast<double>(extreme) / (flips + 1.0);
}

std::vector<double> holm_adjust(std::span<const double> p_values) {
  std::vector<double> adjusted(p_values.size(), nan);
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < p_values.size(); ++i) {
    if (!std::isnan(p_values[i])) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return p_values[a] < p_values[b]; });
  double running = 0;
  for (std::size_t rank = 0; rank < order.size(); ++rank) {
    const double multiplier = static_cast<double>(order.size() - rank);
    running = std::max(running, std::min(1.0, multiplier * p_values[order[rank]]));
    adjusted[order[rank]] = running;
  }
  return adjusted;
}

double p_above(std::span<const double> values, double threshold) {
  if (values.size() < 2 || !all_finite(values)) return nan;
  const Sample sample(values);
  if (sample.error == 0) return sample.mean > threshold ? std::exp2(-sample.n) : 1.0;
  const double t = (sample.mean - threshold) / sample.error;
  return student_t_cdf(-std::min(t, sample.corrected(t)), sample.n - 1);
}

double equivalence_test(std::span<const double> values, double margin) {
  std::vector<double> negative(values.begin(), values.end());
  for (double& value : negative) value = -value;
  return std::max(p_above(values, -margin), p_above(negative, -margin));
}

double p_share_within(std::span<const double> values, double margin, double share) {
  if (values.empty()) return nan;
  double within = 0;
  for (double value : values) {
    if (std::isnan(value)) return nan;
    within += std::abs(value) < margin;
  }
  if (within == 0) return 1;
  const boost::math::binomial observed(static_cast<double>(values.size()), share);
  return boost::math::cdf(boost::math::complement(observed, within - 1));
}

double rank_correlation(std::span<const double> a, std::span<const double> b) {
  std::vector<double> left, right;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    if (std::isnan(a[i]) || std::isnan(b[i])) continue;
    left.push_back(a[i]);
    right.push_back(b[i]);
  }
  if (left.size() < 3) return nan;
  left = ranks_of(left);
  right = ranks_of(right);
  const double centre = 0.5 * static_cast<double>(left.size() + 1);
  double product = 0, left_squares = 0, right_squares = 0;
  for (std::size_t i = 0; i < left.size(); ++i) {
    const double x = left[i] - centre, y = right[i] - centre;
    product += x * y;
    left_squares += x * x;
    right_squares += y * y;
  }
  if (left_squares == 0 || right_squares == 0) return nan;
  return product / std::sqrt(left_squares * right_squares);
}

std::vector<std::size_t> resample_indices(std::size_t n, std::size_t draws, const RandomKey& key,
                                          std::uint64_t number) {
  std::mt19937_64 random = generator(key, Use::resample, number);
  std::vector<std::size_t> indices(draws);
  for (std::size_t i = 0; i < draws; i += 2) {
    const std::uint64_t bits = random();
    indices[i] = below(static_cast<std::uint32_t>(bits), n);
    if (i + 1 < draws) indices[i + 1] = below(static_cast<std::uint32_t>(bits >> 32), n);
  }
  return indices;
}

std::vector<double> run_weights(std::size_t runs, const RandomKey& key, std::uint64_t number) {
  if (runs == 1) return {1.0};
  std::mt19937_64 random = generator(key, Use::weigh, number);
  std::vector<double> weights(runs);
  for (double& weight : weights) weight = normal_quantile((static_cast<double>(random() >> 11) + 0.5) * 0x1p-53);
  const double centre = mean(weights), count = static_cast<double>(runs);
  // The variance of sum_r (g_r - mean g) x_r over normal g is the x's sum of squares, (R - 1) s^2.
  const double scale = 1 / std::sqrt(count * (count - 1));
  for (double& weight : weights) weight = 1 / count + (weight - centre) * scale;
  return weights;
}

}  // namespace routescope::analysis
