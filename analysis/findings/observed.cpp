#include "analysis/findings/observed.h"

#include <algorithm>
#include <cmath>

#include "analysis/statistics/documents.h"
#include "analysis/statistics/two_way.h"

namespace routescope::analysis {

std::vector<double> by_document(std::span<const double> by_sequence, std::span<const std::int64_t> documents) {
  return document_values(by_sequence, documents);
}

Observed difference(Observed a, const Observed& b) {
  for (std::size_t run = 0; run < a.values.size(); ++run)
    for (std::size_t i = 0; i < a.values[run].size(); ++i) a.values[run][i] -= b.values[run][i];
  return a;
}

double Observed::mean() const {
  double sum = 0;
  for (const std::vector<double>& of_run : values) sum += analysis::mean(of_run);
  return sum / static_cast<double>(values.size());
}

Estimate Observed::estimate() const {
  const double half = TwoWay(values).half_width(interval_level), value = mean();
  return {value, {value - half, value + half}};
}

double Observed::p_above(double threshold) const {
  const double beyond = mean() - threshold;
  if (std::isnan(beyond)) return nan;
  if (values.size() == 1) return analysis::p_above(values.front(), threshold);
  const TwoWay over(values);
  if (std::isnan(over.mean)) return nan;
  // Twice the p value is 1 - the level at which the interval ends at the threshold.
  double low = std::log(1e-13), high = 0;  // of ln(2 p)
  const auto reaches = [&](double log_two_p) { return !(over.half_width(1 - std::exp(log_two_p)) < std::abs(beyond)); };
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
  return std::max(p, analysis::p_above(over_runs, threshold));
}

}  // namespace routescope::analysis
