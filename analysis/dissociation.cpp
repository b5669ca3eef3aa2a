// Does the mass of a slice tell its effect?
#include <algorithm>
#include <cmath>
#include <limits>

#include "analysis/findings_parts.h"

namespace routescope {
namespace {

bool appreciable_and_idle(const ProbeRow& row, std::size_t slice) {
  const AblationEffects& effects = row.ablations.front();
  const bool shown =
      effects.p_equivalence_adjusted[slice] < significance || effects.decision[slice] == Decision::absent;
  return row.mass[slice] >= appreciable_mass && shown;
}

/// One-sided t test that the mean of the finite values is above zero.
double p_above_zero(std::span<const double> values) {
  std::vector<double> measured;
  for (double value : values) {
    if (!std::isnan(value)) measured.push_back(value);
  }
  if (measured.size() < 2) return 1;
  const double centre = mean(measured), n = static_cast<double>(measured.size());
  double squares = 0;
  for (double value : measured) squares += (value - centre) * (value - centre);
  const double error = std::sqrt(squares / (n - 1) / n);
  if (error == 0) return centre > 0 ? 0 : 1;
  return student_t_cdf(-centre / error, static_cast<int>(measured.size()) - 1);
}

double p_largest(const ProbeRow& row, std::span<const std::size_t> tested, std::size_t sequences) {
  const std::vector<double>& effects = row.ablations.front().delta_nll_sequence;
  const std::size_t heaviest =
      *std::max_element(tested.begin(), tested.end(), [&](auto a, auto b) { return row.mass[a] < row.mass[b]; });
  double least = 1;
  std::vector<double> difference(sequences);
  for (std::size_t other : tested) {
    if (other == heaviest) continue;
    for (std::size_t i = 0; i < sequences; ++i)
      difference[i] = effects[other * sequences + i] - effects[heaviest * sequences + i];
    least = std::min(least, p_above_zero(difference) * static_cast<double>(tested.size() - 1));
  }
  return least;
}

/// NaN, a resample without a sequence of the set, is below all.
std::size_t largest(std::span<const double> values) {
  const auto less = [](double a, double b) { return a < b || (std::isnan(a) && !std::isnan(b)); };
  return static_cast<std::size_t>(std::max_element(values.begin(), values.end(), less) - values.begin());
}

}  // namespace

Dissociation dissociation_of(const Curves& curves, std::size_t row, std::span<const Rows> runs) {
  Dissociation out;
  std::vector<std::size_t> tested;
  for (std::size_t s = 0; s < curves.sets; ++s) {
    if (!std::isnan(curves.effect.value(row, s))) tested.push_back(s);
  }
  if (tested.empty()) return out;
  std::vector<double> mass(tested.size()), effect(tested.size());
  for (std::size_t i = 0; i < tested.size(); ++i) {
    mass[i] = curves.mass.value(row, tested[i]);
    effect[i] = curves.effect.value(row, tested[i]);
  }
  out.rank_correlation.value = rank_correlation(mass, effect);
  out.largest_mass = static_cast<int>(tested[largest(mass)]);
  out.largest_effect = static_cast<int>(tested[largest(effect)]);

  std::vector<double> correlations(curves.resamples);
  double same = 0;
  for (std::size_t b = 0; b < curves.resamples; ++b) {
    for (std::size_t i = 0; i < tested.size(); ++i) {
      mass[i] = curves.mass.resampled(row, tested[i])[b];
      effect[i] = curves.effect.resampled(row, tested[i])[b];
    }
    correlations[b] = rank_correlation(mass, effect);
    same += largest(mass) == largest(effect);
  }
  out.rank_correlation.ci = percentile_interval(correlations, curves.sequences);
  out.p_same = same / static_cast<double>(curves.resamples);

  out.p_largest = 0;
  for (const Rows& run : runs) out.p_largest = std::max(out.p_largest, p_largest(*run[row], tested, curves.sequences));
  for (std::size_t s : tested) {
    if (std::all_of(runs.begin(), runs.end(), [&](const Rows& run) { return appreciable_and_idle(*run[row], s); }))
      out.idle.push_back(static_cast<int>(s));
  }
  return out;
}

}  // namespace routescope
