#include "analysis/findings/onset.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace routescope::analysis {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

template <class Curve>
double half_rise(const Curve& curve, std::span<const std::int64_t> steps) {
  const double last = curve(steps.size() - 1);
  if (!(last > 0)) return infinity;
  double above = 0, greatest = 0;
  std::size_t from = steps.size() - 1;
  for (std::size_t row = steps.size(); row-- > 0;) {
    above += std::clamp(curve(row), 0.0, last) - 0.5 * last;
    if (above > greatest) {
      greatest = above;
      from = row;
    }
  }
  return static_cast<double>(steps[from]);
}

}  // namespace

std::vector<Estimate> Strength::estimates() const {
  std::vector<Estimate> out;
  for (std::size_t row = 0; row < value.size(); ++row)
    out.push_back({value[row], percentile_interval(resampled[row], degrees[row])});
  return out;
}

bool Strength::shown_above_zero(std::size_t row) const {
  constexpr double one_sided = 2 * interval_level - 1;
  return value[row] > 0 && percentile_interval(resampled[row], degrees[row], one_sided).lower > 0;
}

double shown_from(const Strength& strength, std::span<const std::int64_t> steps) {
  double from = nan;
  for (std::size_t row = steps.size(); row-- > 0 && strength.shown_above_zero(row);)
    from = static_cast<double>(steps[row]);
  return from;
}

Onset::Onset(const Strength& strength, std::span<const std::int64_t> steps)
    : shown(strength.shown_above_zero(steps.size() - 1)),
      degrees(*std::min_element(strength.degrees.begin(), strength.degrees.end())) {
  if (!shown) return;
  value = half_rise([&](std::size_t row) { return strength.value[row]; }, steps);
  for (std::size_t b = 0; b < strength.resampled.front().size(); ++b)
    resampled.push_back(half_rise([&](std::size_t row) { return strength.resampled[row][b]; }, steps));
}

Estimate lead_of(const Onset& a, const Onset& b) {
  if (!a.shown || !b.shown) return {};
  const auto lead = [](double one, double other) { return std::log1p(one) - std::log1p(other); };
  std::vector<double> resampled;
  for (std::size_t i = 0; i < a.resampled.size(); ++i) resampled.push_back(lead(a.resampled[i], b.resampled[i]));
  return {lead(a.value, b.value), percentile_interval(resampled, a.degrees)};
}

}  // namespace routescope::analysis
