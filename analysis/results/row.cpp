#include "analysis/results/row.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace routescope::analysis {

std::size_t AblationEffects::tested() const {
  return static_cast<std::size_t>(
      std::count_if(sets.begin(), sets.end(), [](const SetEffect& set) { return set.coverage > 0; }));
}

std::vector<double> AblationEffects::delta_nll() const {
  std::vector<double> values;
  for (const SetEffect& set : sets) values.push_back(set.delta_nll.value);
  return values;
}

bool Atlas::has_estimate() const {
  return std::any_of(estimate.begin(), estimate.end(), [](const Estimate& one) { return !std::isnan(one.value); });
}

std::size_t Atlas::random_checks() const {
  return static_cast<std::size_t>(std::count_if(
      checked.begin(), checked.end(), [](const CheckedRoute& route) { return route.by == CheckedBy::random; }));
}

const AblationEffects* ProbeRow::find(Ablation ablation) const {
  const auto found =
      std::find_if(ablations.begin(), ablations.end(), [&](const auto& one) { return one.ablation == ablation; });
  return found == ablations.end() ? nullptr : &*found;
}

const AblationEffects& ProbeRow::effects(Ablation ablation) const {
  if (const AblationEffects* found = find(ablation)) return *found;
  throw std::logic_error("the ablation " + to_string(ablation) + " was not measured");
}

}  // namespace routescope::analysis
