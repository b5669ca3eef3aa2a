#include "analysis/findings/onset.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace routescope::analysis {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

struct Rise {
  double step = infinity;
  Interval rows{infinity, infinity};
};

template <class Curve>
Rise half_rise(const Curve& curve, std::span<const std::int64_t> steps) {
  const double last = curve(steps.size() - 1), half = 0.5 * last;
  if (!(last > 0)) return {};
  const auto clipped = [&](std::size_t row) { return std::clamp(curve(row), 0.0, last); };
  double above = 0, greatest = 0;
  std::size_t from = steps.size() - 1;
  for (std::size_t row = steps.size(); row-- > 0;) {
    above += clipped(row) - half;
    if (above > greatest) {
      greatest = above;
      from = row;
    }
  }
  const auto at = static_cast<double>(steps[from]);
  if (from == 0) return {at, {at, at}};
  // The fitted step rises to above half, or the sum would be larger without the row; before it the curve is not above.
  const double before = std::min(clipped(from - 1), half), after = std::max(clipped(from), half);
  const auto from_step = static_cast<double>(steps[from - 1]);
  const double share = after > before ? (half - before) / (after - before) : 0.5;
  return {from_step + share * (at - from_step), {from_step, at}};
}

}  // namespace

std::vector<Estimate> Strength::estimates() const {
  std::vector<Estimate> out;
  for (std::size_t row = 0; row < value.size(); ++row)
    out.push_back({value[row], percentile_interval(resampled[row], freedom[row])});
  return out;
}

double shown_from(std::span<const double> p, std::span<const std::int64_t> steps) {
  double from = nan;
  for (std::size_t row = steps.size(); row-- > 0 && p[row] < significance;) from = static_cast<double>(steps[row]);
  return from;
}

Onset::Onset(const Strength& strength, std::span<const std::int64_t> steps, bool is_shown)
    : shown(is_shown), freedom(*std::min_element(strength.freedom.begin(), strength.freedom.end())) {
  const Rise rise = half_rise([&](std::size_t row) { return strength.value[row]; }, steps);
  shown = shown && std::isfinite(rise.step);
  if (!shown) return;
  value = rise.step;
  rows = rise.rows;
  for (std::size_t b = 0; b < strength.resampled.front().size(); ++b)
    resampled.push_back(half_rise([&](std::size_t row) { return strength.resampled[row][b]; }, steps).step);
}

Estimate Onset::estimate() const {
  const Interval of_resamples = percentile_interval(resampled, freedom);
  return {value, {std::min(of_resamples.lower, rows.lower), std::max(of_resamples.upper, rows.upper)}};
}

Estimate lead_of(const Onset& a, const Onset& b) {
  if (!a.shown || !b.shown) return {};
  const auto lead = [](double one, double other) { return std::log1p(one) - std::log1p(other); };
  std::vector<double> resampled;
  for (std::size_t i = 0; i < a.resampled.size(); ++i) resampled.push_back(lead(a.resampled[i], b.resampled[i]));
  const Interval of_resamples = percentile_interval(resampled, std::min(a.freedom, b.freedom));
  return {lead(a.value, b.value),
          {std::min(of_resamples.lower, lead(a.rows.lower, b.rows.upper)),
           std::max(of_resamples.upper, lead(a.rows.upper, b.rows.lower))}};
}

}  // namespace routescope::analysis
