#include "analysis/statistics/two_way.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace routescope::analysis {
namespace {

/// s^2 / n: the variance of the values' mean.
double variance_of_mean(std::span<const double> values) {
  const double error = Sample(values).error;
  return error * error;
}

}  // namespace

TwoWay::TwoWay(const std::vector<std::vector<double>>& values)
    : runs(values.size()), documents(values.empty() ? 0 : values.front().size()) {
  if (values.empty()) throw std::invalid_argument("a mean over no runs");
  std::vector<double> run_means, document_means(documents, 0.0);
  for (const std::vector<double>& run : values) {
    if (run.size() != documents) throw std::invalid_argument("runs with different numbers of documents");
    if (!std::all_of(run.begin(), run.end(), [](double v) { return std::isfinite(v); })) return;
    run_means.push_back(analysis::mean(run));
    for (std::size_t d = 0; d < documents; ++d) document_means[d] += run[d] / static_cast<double>(runs);
  }
  if (documents < 2) return;
  if (runs == 1) document_means = values.front();
  mean = analysis::mean(run_means);
  of_documents = variance_of_mean(document_means);
  of_runs = of_both = 0;
  if (runs == 1) return;
  of_runs = variance_of_mean(run_means);
  double squares = 0;
  for (std::size_t r = 0; r < runs; ++r) {
    for (std::size_t d = 0; d < documents; ++d) {
      const double residual = values[r][d] - run_means[r] - document_means[d] + mean;
      squares += residual * residual;
    }
  }
  const double cells = static_cast<double>(runs * documents);
  of_both = squares / static_cast<double>((runs - 1) * (documents - 1)) / cells;
}

double TwoWay::degrees() const {
  const double sum = of_runs + of_documents, of_d = static_cast<double>(documents - 1);
  if (runs == 1 || sum == 0) return of_d;
  const double of_r = static_cast<double>(runs - 1);
  return sum * sum / (of_runs * of_runs / of_r + of_documents * of_documents / of_d);
}

double TwoWay::half_width(double level) const {
  if (std::isnan(mean)) return nan;
  const auto squared = [&](std::size_t n) {
    const double t = student_t_quantile(0.5 + 0.5 * level, static_cast<double>(n - 1));
    return t * t;
  };
  return std::sqrt((runs == 1 ? 0 : squared(runs) * of_runs) +
                   squared(documents) * std::max(0.0, of_documents - of_both));
}

Estimate two_way_mean(const std::vector<std::vector<double>>& values) {
  const TwoWay both(values);
  const double half = both.half_width();
  return {both.mean, {both.mean - half, both.mean + half}};
}

}  // namespace routescope::analysis
