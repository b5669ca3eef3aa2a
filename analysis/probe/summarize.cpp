// From effects by sequence to what may be said of them.
#include <algorithm>
#include <cmath>
#include <limits>

#include "analysis/probe/probe.h"
#include "analysis/statistics/statistics.h"

namespace routescope::analysis {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// What one quantity, measured on each sequence, comes to.
struct Summary {
  double mean, lower, upper, p;
};

Summary summary(std::span<const double> values, const RandomKey& key, const ProbeSettings& settings) {
  const Interval interval = settings.until_decided ? confidence_sequence(values) : bootstrap_interval(values, key);
  return {mean(values), interval.lower, interval.upper,
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

void summarize(AblationEffects& effects, std::int64_t sequences, const ProbeOptions& options) {
  const ProbeSettings& settings = options.settings;
  const std::size_t sets = effects.coverage.size(), all = static_cast<std::size_t>(sequences);
  const bool controlled = !effects.control_sequence.empty();
  for (auto* field : {&effects.delta_nll, &effects.ci_lower, &effects.ci_upper, &effects.p_value,
                      &effects.p_equivalence, &effects.sequences_used})
    field->assign(sets, nan);
  for (auto* field :
       {&effects.control, &effects.excess, &effects.excess_lower, &effects.excess_upper, &effects.excess_p})
    field->assign(controlled ? sets : 0, nan);
  effects.decision.assign(sets, Decision::open);
  const auto tested = static_cast<std::size_t>(
      std::count_if(effects.coverage.begin(), effects.coverage.end(), [](double share) { return share > 0; }));

  for (std::size_t s = 0; s < sets; ++s) {
    if (!(effects.coverage[s] > 0)) continue;
    std::span<const double> values(effects.delta_nll_sequence.data() + s * all, all);
    values = values.first(measured(values, tested, settings));
    const auto key = [&](std::uint64_t quantity) {
      return RandomKey{settings.seed, static_cast<std::uint64_t>(options.step), s,
                       2 * static_cast<std::uint64_t>(effects.ablation) + quantity};
    };
    const Summary effect = summary(values, key(0), settings);
    effects.delta_nll[s] = effect.mean;
    effects.ci_lower[s] = effect.lower;
    effects.ci_upper[s] = effect.upper;
    effects.p_value[s] = effect.p;
    effects.sequences_used[s] = static_cast<double>(values.size());
    if (settings.until_decided) {
      effects.decision[s] = decide(values, tested, settings.margin);
    } else {
      effects.p_equivalence[s] = equivalence_test(values, settings.margin);
    }
    if (!controlled) continue;
    const std::span<const double> control(effects.control_sequence.data() + s * all, values.size());
    std::vector<double> excess;
    for (std::size_t i = 0; i < values.size(); ++i) excess.push_back(values[i] - control[i]);
    const Summary beyond = summary(excess, key(1), settings);
    effects.control[s] = mean(control);
    effects.excess[s] = beyond.mean;
    effects.excess_lower[s] = beyond.lower;
    effects.excess_upper[s] = beyond.upper;
    effects.excess_p[s] = beyond.p;
  }
  effects.p_adjusted = holm_adjust(effects.p_value);
  effects.p_equivalence_adjusted = holm_adjust(effects.p_equivalence);
  effects.excess_p_adjusted = holm_adjust(effects.excess_p);
}

}  // namespace routescope::analysis
