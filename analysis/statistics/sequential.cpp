#include "analysis/statistics/sequential.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace routescope::analysis {
namespace {

// Confidence sequences: the t statistic's likelihood ratio between effects of a normal prior, in units of the unknown
// standard deviation, and none. Under the hypothesis it is a nonnegative martingale that starts at 1, so that it ever
// exceeds 1/a with probability at most a (Ville): the means for which it does not exceed 1/a hold the true one at all
// n.
/// ln of (1 + n g)^(-1/2) [(1 + q) / (1 + q / (1 + n g))]^(n/2) with q = t^2 / (n - 1), g = effect_scale^2.
double log_evidence(double t, double n, double effect_scale) {
  const double widening = 1 + n * effect_scale * effect_scale;
  const double q = t * t / (n - 1);
  const double ratio = std::isinf(q) ? widening : (1 + q) / (1 + q / widening);
  return 0.5 * (n * std::log(ratio) - std::log(widening));
}

}  // namespace

Interval confidence_sequence(std::span<const double> values, double level, double effect_scale) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  if (!std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); })) return {nan, nan};
  if (values.size() < sequential_least_n) return {-infinity, infinity};
  const Sample sample(values);
  if (sample.error == 0) return {sample.mean, sample.mean};
  // log_evidence(t) = ln(1 / (1 - level)) solved for t.
  const double n = sample.n, widening = 1 + n * effect_scale * effect_scale;
  const double bound = std::exp(2 / n * (std::log(1 / (1 - level)) + 0.5 * std::log(widening)));
  if (bound >= widening) return {-infinity, infinity};
  const double t = std::sqrt((n - 1) * (bound - 1) / (1 - bound / widening));
  return {sample.mean - sample.error * std::max(t, sample.uncorrected(t)),
          sample.mean + sample.error * std::max(t, -sample.uncorrected(-t))};
}

double sequential_p_value(std::span<const double> values, std::int64_t look_every, double effect_scale) {
  if (!std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); }))
    return std::numeric_limits<double>::quiet_NaN();
  double greatest = 0;  // ln 1, the evidence of no values
  const auto look = [&](std::size_t n) {
    if (n < sequential_least_n) return;
    const Sample sample(values.first(n));
    if (sample.mean == 0) return;
    const double t = sample.mean / sample.error;
    const double evidence = log_evidence(t, sample.n, effect_scale);
    greatest = std::max(greatest, sample.error == 0
                                      ? evidence
                                      : std::min(evidence, log_evidence(sample.corrected(t), sample.n, effect_scale)));
  };
  const auto step = static_cast<std::size_t>(look_every);
  for (std::size_t n = step; n < values.size(); n += step) look(n);
  look(values.size());
  return std::exp(-greatest);
}

}  // namespace routescope::analysis
