#include "analysis/findings/observed.h"

#include <algorithm>
#include <cmath>

#include "analysis/statistics/documents.h"
#include "analysis/statistics/two_way.h"

namespace routescope::analysis {
namespace {

/// Half the width of an interval of this level that a variance with its degrees of freedom makes.
double draw_half_width(const Observed& observed, double level) {
  if (observed.draw_variance == 0) return 0;
  if (observed.draw_freedom < 1) return nan;
  const double quantile = std::isinf(observed.draw_freedom)
                              ? normal_quantile(0.5 + 0.5 * level)
                              : student_t_quantile(0.5 + 0.5 * level, static_cast<int>(observed.draw_freedom));
  return std::sqrt(observed.draw_variance) * quantile;
}

double half_width(const TwoWay& over, const Observed& observed, double level) {
  return std::hypot(over.half_width(level), draw_half_width(observed, level));
}

}  // namespace

std::vector<double> by_document(std::span<const double> by_sequence, std::span<const std::int64_t> documents) {
  return document_values(by_sequence, documents);
}

void add_draws(Observed& observed, double error, double freedom) {
  if (error == 0) return;
  const double variance = error * error, sum = observed.draw_variance + variance;
  if (std::isnan(error) || freedom < 1 || observed.draw_freedom < 1) {
    observed.draw_variance = nan;
    observed.draw_freedom = 0;
    return;
  }
  // Satterthwaite (1946).
  const double before = observed.draw_variance * observed.draw_variance / observed.draw_freedom;
  observed.draw_freedom = std::max(1.0, std::floor(sum * sum / (before + variance * variance / freedom)));
  observed.draw_variance = sum;
}

Observed difference(Observed a, const Observed& b) {
  for (std::size_t run = 0; run < a.values.size(); ++run)
    for (std::size_t i = 0; i < a.values[run].size(); ++i) a.values[run][i] -= b.values[run][i];
  add_draws(a, std::sqrt(b.draw_variance), b.draw_freedom);
  return a;
}

double Observed::mean() const {
  double sum = 0;
  for (const std::vector<double>& of_run : values) sum += analysis::mean(of_run);
  return sum / static_cast<double>(values.size());
}

Estimate Observed::estimate() const {
  const double half = half_width(TwoWay(values), *this, interval_level), value = mean();
  return {value, {value - half, value + half}};
}

double Observed::p_above(double threshold) const {
  const double beyond = mean() - threshold;
  if (std::isnan(beyond) || std::isnan(draw_variance)) return nan;
  if (values.size() == 1) return analysis::p_above(values.front(), threshold, std::sqrt(draw_variance), draw_freedom);
  const TwoWay over(values);
  if (std::isnan(over.mean)) return nan;
  // Twice the p value is 1 - the level at which the interval ends at the threshold.
  double low = std::log(1e-13), high = 0;  // of ln(2 p)
  const auto reaches = [&](double log_two_p) {
    return !(half_width(over, *this, 1 - std::exp(log_two_p)) < std::abs(beyond));
  };
  for (int halving = 0; halving < 60; ++halving) {
    const double middle = 0.5 * (low + high);
    (reaches(middle) ? low : high) = middle;
  }
  const double tail = 0.5 * std::exp(0.5 * (low + high));
  const double p = beyond > 0 ? tail : 1 - tail;
  // Student's t alone errs on values skewed to the left, whichever documents the runs share.
  std::vector<double> over_runs(values.front().size(), 0.0);
  for (const std::vector<double>& run : values)
    for (std::size_t i = 0; i < over_runs.size(); ++i) over_runs[i] += run[i] / static_cast<double>(values.size());
  return std::max(p, analysis::p_above(over_runs, threshold, std::sqrt(draw_variance), draw_freedom));
}

}  // namespace routescope::analysis
