#include "analysis/findings/parts.h"

#include <algorithm>
#include <cmath>

#include "analysis/findings/observed.h"

namespace routescope::analysis {
namespace {

Ablation of_donor(Donor donor) {
  return donor == Donor::mean ? Ablation::mean : donor == Donor::position ? Ablation::resample : Ablation::patch;
}

}  // namespace

std::string parts_name(Donor donor) {
  return to_string(of_donor(donor));
}

std::vector<PartInteraction> interactions_at(std::span<const Rows> runs, std::size_t row, std::size_t sequences,
                                             std::span<const std::int64_t> documents) {
  std::vector<PartInteraction> out;
  for (Donor donor : {Donor::mean, Donor::position, Donor::text}) {
    const Ablation one = of_donor(donor), value = with_part(one, Part::value), key = with_part(one, Part::key),
                   both = with_part(one, Part::both);
    const auto measured = [&](Ablation ablation) {
      return std::all_of(runs.begin(), runs.end(), [&](const Rows& run) {
        const AblationEffects* effects = run[row]->find(ablation);
        return effects && !effects->sets.empty();
      });
    };
    if (!measured(value) || !measured(key) || !measured(both)) continue;
    PartInteraction& interaction = out.emplace_back();
    interaction.donor = donor;
    const std::size_t sets = runs.front()[row]->effects(both).sets.size();
    for (std::size_t s = 0; s < sets; ++s) {
      const auto effect = [&](const Rows& run, std::size_t at, Ablation ablation, std::size_t i) {
        return run[at]->effects(ablation).sets[s].delta_nll_sequence[i];
      };
      Observed beyond = observe(runs, row, sequences, documents, [&](const Rows& run, std::size_t at, std::size_t i) {
        return effect(run, at, both, i) - effect(run, at, value, i) - effect(run, at, key, i);
      });
      interaction.delta_nll.push_back(beyond.estimate());
      const double above = beyond.p_above();
      for (std::vector<double>& run : beyond.values)
        for (double& one_document : run) one_document = -one_document;
      interaction.p_value.push_back(std::isnan(above) ? nan : std::min(1.0, 2 * std::min(above, beyond.p_above())));
    }
    interaction.p_adjusted = holm_adjust(interaction.p_value);
  }
  return out;
}

}  // namespace routescope::analysis
