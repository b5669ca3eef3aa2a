#include "analysis/probe/summarize.h"

#include <algorithm>
#include <cmath>

#include "analysis/statistics/documents.h"
#include "analysis/statistics/sequential.h"

namespace routescope::analysis {
namespace {

/// The mean of one quantity that was measured on each sequence, and the p value of no effect.
struct Summary {
  Estimate mean;
  double p = nan;
};

class Summarizer {
 public:
  Summarizer(const ProbeIdentity& identity, double margin, std::size_t tested)
      : tokens_(identity.tokens), settings_(identity.settings), margin_(margin), tested_(tested) {}

  Summary effect(std::span<const double> values, const RandomKey& key) const {
    const std::vector<double> units = units_of(values);
    return {{mean(values), settings_.until_decided ? confidence_sequence(units) : bootstrap_interval(units, key)},
            settings_.until_decided ? sequential_p_value(units, settings_.look_every) : sign_flip_test(units, key)};
  }

  /// Differences may be skewed, which sign flips take for an effect.
  Summary excess(std::span<const double> values, const RandomKey& key) const {
    Summary out = effect(values, key);
    if (settings_.until_decided) return out;
    out.p = two_sided_p(units_of(values));
    return out;
  }

  /// How many sequences a set was measured on: all up to the look that decided it. A NaN among them is the model's.
  std::size_t measured(std::span<const double> values) const {
    if (!settings_.until_decided) return values.size();
    const auto look_every = static_cast<std::size_t>(settings_.look_every);
    for (std::size_t n = look_every; n < values.size(); n += look_every) {
      if (decide(values_so_far(values.first(n), tokens_), tested_, margin_) != Decision::open) return n;
    }
    return values.size();
  }

  std::vector<double> units_of(std::span<const double> values) const {
    return settings_.until_decided ? values_so_far(values, tokens_) : document_values(values, tokens_.documents);
  }

  /// NaN where the moment to stop was chosen by looking at the data.
  Estimate ratio(std::span<const double> numerator, std::span<const double> denominator) const {
    if (settings_.until_decided) return {};
    return ratio_of_means(units_of(numerator), units_of(denominator));
  }

 private:
  const ProbeTokens& tokens_;
  const ProbeSettings& settings_;
  double margin_;
  std::size_t tested_;
};

std::vector<double> minus(std::span<const double> a, std::span<const double> b) {
  std::vector<double> out;
  for (std::size_t i = 0; i < a.size(); ++i) out.push_back(a[i] - b[i]);
  return out;
}

constexpr std::uint64_t path_effects = 200;  // RandomKey::what, beyond those of ablations and of the atlas

/// `total` [sequences measured] of the set; the effect's key, and after it that of the difference.
void summarize_path(PathEffect& path, std::span<const double> total, bool frozen, const Summarizer& summarizer,
                    RandomKey key) {
  if (path.delta_nll_sequence.empty()) return;
  const auto values = std::span<const double>(path.delta_nll_sequence).first(total.size());
  path.delta_nll = summarizer.effect(values, key).mean;
  ++key.what;
  const std::vector<double> difference = frozen ? minus(values, total) : minus(total, values);
  const Summary summary = summarizer.excess(difference, key);
  path.difference = summary.mean;
  path.p = summary.p;
  if (frozen) path.share = summarizer.ratio(difference, values);
}

/// Of the sums over all sets, each on all sequences.
Estimate repaired_share(const AblationEffects& effects, const Summarizer& summarizer) {
  std::vector<double> frozen, difference;
  for (const SetEffect& set : effects.sets) {
    if (!(set.coverage > 0) || set.frozen.delta_nll_sequence.empty()) continue;
    frozen.resize(set.delta_nll_sequence.size(), 0.0);
    difference.resize(frozen.size(), 0.0);
    for (std::size_t q = 0; q < frozen.size(); ++q) {
      frozen[q] += set.frozen.delta_nll_sequence[q];
      difference[q] += set.frozen.delta_nll_sequence[q] - set.delta_nll_sequence[q];
    }
  }
  return summarizer.ratio(difference, frozen);
}

constexpr std::uint64_t metric_effects = 400;  // RandomKey::what, beyond those of ablations and of the atlas

/// Of a task, from the first `measured` prompts.
void summarize_metrics(SetEffect& set, std::size_t measured, const Summarizer& summarizer, RandomKey key) {
  for (MetricEffect& metric : set.metrics) {
    const std::span<const double> values(metric.delta_sequence);
    // Without a distractor there is no difference of logits.
    if (!values.empty() && !std::isnan(mean(values.first(measured))))
      metric.delta = summarizer.effect(values.first(measured), key).mean;
    ++key.what;
  }
}

}  // namespace

std::vector<double> values_so_far(std::span<const double> by_sequence, const ProbeTokens& tokens) {
  return document_sums(by_sequence, tokens.documents, tokens.sequences,
                       tokens.documents.empty() ? tokens.sequences : count_documents(tokens.documents));
}

Decision decide(std::span<const double> effects, std::size_t tested, double margin) {
  const Interval interval =
      confidence_sequence(effects, 1 - (1 - interval_level) / static_cast<double>(std::max<std::size_t>(tested, 1)));
  if (interval.lower > -margin && interval.upper < margin) return Decision::absent;
  if (interval.lower > 0 || interval.upper < 0) return Decision::effect;
  return Decision::open;
}

void summarize(AblationEffects& effects, const ProbeIdentity& identity, double margin, std::int64_t step) {
  const ProbeSettings& settings = identity.settings;
  const std::size_t tested = effects.tested();
  const Summarizer summarizer(identity, margin, tested);
  for (std::size_t s = 0; s < effects.sets.size(); ++s) {
    SetEffect& set = effects.sets[s];
    if (!(set.coverage > 0)) continue;
    std::span<const double> values(set.delta_nll_sequence);
    values = values.first(summarizer.measured(values));
    const auto key = [&](std::uint64_t quantity) {
      return RandomKey{settings.seed, static_cast<std::uint64_t>(step), s,
                       3 * static_cast<std::uint64_t>(effects.ablation) + quantity};
    };
    const Summary effect = summarizer.effect(values, key(0));
    set.delta_nll = effect.mean;
    set.p_value = effect.p;
    set.sequences_used = static_cast<double>(values.size());
    const std::vector<double> units = summarizer.units_of(values);
    if (settings.until_decided) {
      set.decision = decide(units, tested, margin);
    } else {
      set.p_equivalence = equivalence_test(units, margin);
    }
    for (PathEffect* path : {&set.frozen, &set.direct})
      summarize_path(*path, values, path == &set.frozen, summarizer,
                     {settings.seed, static_cast<std::uint64_t>(step), s,
                      path_effects + 4 * static_cast<std::uint64_t>(effects.ablation) + 2 * (path == &set.direct)});
    summarize_metrics(set, values.size(), summarizer,
                      {settings.seed, static_cast<std::uint64_t>(step), s,
                       metric_effects + num_metrics * static_cast<std::uint64_t>(effects.ablation)});
    for (ControlEffect* control : {&set.control, &set.contribution_control}) {
      if (control->delta_nll_sequence.empty()) continue;
      std::vector<double> excess;
      for (std::size_t i = 0; i < values.size(); ++i) excess.push_back(values[i] - control->delta_nll_sequence[i]);
      const Summary beyond = summarizer.excess(excess, key(control == &set.control ? 1 : 2));
      control->delta_nll = mean(std::span(control->delta_nll_sequence).first(values.size()));
      control->excess = beyond.mean;
      control->excess_p = beyond.p;
    }
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
  for (PathEffect SetEffect::*path : {&SetEffect::frozen, &SetEffect::direct})
    adjust([&](const SetEffect& set) { return (set.*path).p; },
           [&](SetEffect& set) -> double& { return (set.*path).p_adjusted; });
  effects.repaired_share = repaired_share(effects, summarizer);
  for (ControlEffect SetEffect::*control : {&SetEffect::control, &SetEffect::contribution_control})
    adjust([&](const SetEffect& set) { return (set.*control).excess_p; },
           [&](SetEffect& set) -> double& { return (set.*control).excess_p_adjusted; });
}

}  // namespace routescope::analysis
