#include "analysis/probe/summarize.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "analysis/statistics/sequential.h"

namespace routescope::analysis {
namespace {

/// The mean of one quantity that was measured on each sequence, and the p value of no effect.
struct Summary {
  Estimate mean;
  double p;
};

Summary summary(std::span<const double> values, const RandomKey& key, const ProbeSettings& settings) {
  return {{mean(values), settings.until_decided ? confidence_sequence(values) : bootstrap_interval(values, key)},
          settings.until_decided ? sequential_p_value(values, settings.look_every) : sign_flip_test(values, key)};
}

/// How many sequences a set was measured on: all up to the look that decided it. A NaN among them is the model's.
std::size_t measured(std::span<const double> values, std::size_t tested, const ProbeSettings& settings) {
  if (!settings.until_decided) return values.size();
  const auto look_every = static_cast<std::size_t>(settings.look_every);
  for (std::size_t n = look_every; n < values.size(); n += look_every) {
    if (decide(values.first(n), tested, settings.margin) != Decision::open) return n;
  }
  return values.size();
}

}  // namespace

Decision decide(std::span<const double> delta_nll, std::size_t tested, double margin) {
  const Interval interval =
      confidence_sequence(delta_nll, 1 - (1 - interval_level) / static_cast<double>(std::max<std::size_t>(tested, 1)));
  if (interval.lower > -margin && interval.upper < margin) return Decision::absent;
  if (interval.lower > 0 || interval.upper < 0) return Decision::effect;
  return Decision::open;
}

void summarize(AblationEffects& effects, const ProbeSettings& settings, std::int64_t step) {
  const std::size_t tested = effects.tested();
  for (std::size_t s = 0; s < effects.sets.size(); ++s) {
    SetEffect& set = effects.sets[s];
    if (!(set.coverage > 0)) continue;
    std::span<const double> values(set.delta_nll_sequence);
    values = values.first(measured(values, tested, settings));
    const auto key = [&](std::uint64_t quantity) {
      return RandomKey{settings.seed, static_cast<std::uint64_t>(step), s,
                       2 * static_cast<std::uint64_t>(effects.ablation) + quantity};
    };
    const Summary effect = summary(values, key(0), settings);
    set.delta_nll = effect.mean;
    set.p_value = effect.p;
    set.sequences_used = static_cast<double>(values.size());
    if (settings.until_decided) {
      set.decision = decide(values, tested, settings.margin);
    } else {
      set.p_equivalence = equivalence_test(values, settings.margin);
    }
    ControlEffect& control = set.control;
    if (control.delta_nll_sequence.empty()) continue;
    std::vector<double> excess;
    for (std::size_t i = 0; i < values.size(); ++i) excess.push_back(values[i] - control.delta_nll_sequence[i]);
    const Summary beyond = summary(excess, key(1), settings);
    control.delta_nll = mean(std::span(control.delta_nll_sequence).first(values.size()));
    control.excess = beyond.mean;
    control.excess_p = beyond.p;
  }
  const auto adjust = [&](const auto& p_value, const auto& p_adjusted) {
    std::vector<double> p_values;
    for (const SetEffect& set : effects.sets) p_values.push_back(p_value(set));
    const std::vector<double> adjusted = holm_adjust(p_values);
    for (std::size_t s = 0; s < effects.sets.size(); ++s) p_adjusted(effects.sets[s]) = adjusted[s];
  };
  adjust([](const SetEffect& set) { return set.p_value; }, [](SetEffect& set) -> double& { return set.p_adjusted; });
  adjust([](const SetEffect& set) { return set.p_equivalence; },
         [](SetEffect& set) -> double& { return set.p_equivalence_adjusted; });
  adjust([](const SetEffect& set) { return set.control.excess_p; },
         [](SetEffect& set) -> double& { return set.control.excess_p_adjusted; });
}

}  // namespace routescope::analysis
