// Confidence sequences: the t statistic's likelihood ratio between effects of a normal prior, in units of the unknown
// standard deviation, and none. Under the hypothesis it is a nonnegative martingale that starts at 1, so that it ever
// exceeds 1/a with probability at most a (Ville): an interval of the means it does not exceed 1/a for holds at all n.
#include <algorithm>
#include <cmath>
#include <limits>

#include "analysis/statistics.h"

namespace routescope {
namespace {

struct Moments {
  double mean = 0, squares = 0;  // squares: sum of squared deviations
  std::int64_t n = 0;

  void add(double value) {  // Welford
    const double deviation = value - mean;
    mean += deviation / static_cast<double>(++n);
    squares += deviation * (value - mean);
  }
};

/// ln of (1 + n g)^(-1/2) [(1 + q) / (1 + q / (1 + n g))]^(n/2) with q = t^2 / (n - 1) = n mean^2 / squares, g =
/// effect_scale^2.
double log_evidence(const Moments& moments, double effect_scale) {
  const double n = static_cast<double>(moments.n), widening = 1 + n * effect_scale * effect_scale;
  const double signal = n * moments.mean * moments.mean;
  if (signal == 0) return -0.5 * std::log(widening);
  // In terms of both sums, so that values without variance have their limit.
  const double ratio = (moments.squares + signal) / (moments.squares + signal / widening);
  return 0.5 * (n * std::log(ratio) - std::log(widening));
}

}  // namespace

Interval confidence_sequence(std::span<const double> values, double level, double effect_scale) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  Moments moments;
  for (double value : values) {
    if (!std::isfinite(value)) return {nan, nan};
    moments.add(value);
  }
  if (moments.n < sequential_least_n) return {-infinity, infinity};
  const auto [smallest, largest] = std::minmax_element(values.begin(), values.end());
  if (*smallest == *largest) return {*smallest, *largest};
  // log_evidence < ln(1 / (1 - level)) solved for q.
  const double n = static_cast<double>(moments.n), widening = 1 + n * effect_scale * effect_scale;
  const double bound = std::exp(2 / n * (std::log(1 / (1 - level)) + 0.5 * std::log(widening)));
  if (bound >= widening) return {-infinity, infinity};
  const double q = (bound - 1) / (1 - bound / widening);
  const double half = std::sqrt(q * moments.squares / n);
  return {moments.mean - half, moments.mean + half};
}

double sequential_p_value(std::span<const double> values, std::int64_t look_every, double effect_scale) {
  Moments moments;
  double greatest = 0;  // ln 1, the evidence of no values
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) return std::numeric_limits<double>::quiet_NaN();
    moments.add(values[i]);
    const bool look = moments.n % look_every == 0 || i + 1 == values.size();
    if (look && moments.n >= sequential_least_n) greatest = std::max(greatest, log_evidence(moments, effect_scale));
  }
  return std::exp(-greatest);
}

}  // namespace routescope
