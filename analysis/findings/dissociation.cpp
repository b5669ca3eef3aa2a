#include "analysis/findings/dissociation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "analysis/routes/ablation.h"
#include "analysis/routes/route_sets.h"

namespace routescope::analysis {
namespace {

/// From the mass of a slice to its free mass. There must be a read that the ablation can change.
struct FreeMass {
  double reads = 0, certain = 0, changed = 0;

  FreeMass(const model::ReadPlan& plan, Ablation ablation, const RouteSet& slice)
      : reads(static_cast<double>(slice.reads.size())),
        changed(static_cast<double>(changed_reads(plan, ablation, whole(slice)).size())) {
    std::set<int> with_sources;
    for (const auto& route : slice.routes) with_sources.insert(route.first);
    certain = static_cast<double>(with_sources.size()) - changed;
  }
  double of(double mass) const { return (mass * reads - certain) / changed; }
};

bool shown_idle(const ProbeRow& row, std::size_t slice) {
  const SetEffect& effect = row.ablations.front().sets[slice];
  return effect.p_equivalence_adjusted < significance || effect.decision == Decision::absent;
}

/// One-sided t test that the mean is above zero.
double p_above_zero(std::span<const double> values) {
  if (values.size() < 2) return 1;
  const Sample sample(values);
  if (sample.error == 0) return sample.mean > 0 ? 0 : 1;
  return student_t_cdf(-sample.mean / sample.error, static_cast<int>(values.size()) - 1);
}

/// masses [tested]: of the run.
double p_largest(const ProbeRow& row, std::span<const std::size_t> tested, std::span<const double> masses,
                 std::size_t sequences) {
  const std::vector<SetEffect>& effects = row.ablations.front().sets;
  const std::size_t heaviest =
      tested[static_cast<std::size_t>(std::max_element(masses.begin(), masses.end()) - masses.begin())];
  double least = 1;
  std::vector<double> difference(sequences);
  for (std::size_t other : tested) {
    if (other == heaviest) continue;
    for (std::size_t i = 0; i < sequences; ++i)
      difference[i] = effects[other].delta_nll_sequence[i] - effects[heaviest].delta_nll_sequence[i];
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

Dissociation dissociation_of(const Curves& curves, std::size_t row, std::span<const Rows> runs,
                             const model::ReadPlan& plan) {
  Dissociation out;
  out.free_mass.assign(curves.sets, nan);
  const std::vector<RouteSet> slices = slice_sets(plan);
  std::vector<std::size_t> tested;
  std::vector<FreeMass> changed;  // [tested]
  std::size_t sequences = curves.sequences;
  for (std::size_t s = 0; s < curves.sets; ++s) {
    const FreeMass of_slice(plan, runs.front()[row]->ablations.front().ablation, slices[s]);
    if (std::isnan(curves.effect.value(row, s)) || of_slice.changed == 0) continue;
    tested.push_back(s);
    changed.push_back(of_slice);
    sequences = std::min(sequences, curves.used[row * curves.sets + s]);
  }
  if (tested.empty()) return out;
  std::vector<double> mass(tested.size()), effect(tested.size());
  for (std::size_t i = 0; i < tested.size(); ++i) {
    mass[i] = changed[i].of(curves.mass.value(row, tested[i]));
    effect[i] = curves.effect.value(row, tested[i]);
  }
  for (std::size_t i = 0; i < tested.size(); ++i) out.free_mass[tested[i]] = mass[i];
  out.rank_correlation.value = rank_correlation(mass, effect);
  out.largest_mass = static_cast<int>(tested[largest(mass)]);
  out.largest_effect = static_cast<int>(tested[largest(effect)]);

  std::vector<double> correlations(curves.resamples);
  double same = 0;
  for (std::size_t b = 0; b < curves.resamples; ++b) {
    for (std::size_t i = 0; i < tested.size(); ++i) {
      mass[i] = changed[i].of(curves.mass.resampled(row, tested[i])[b]);
      effect[i] = curves.effect.resampled(row, tested[i])[b];
    }
    correlations[b] = rank_correlation(mass, effect);
    same += largest(mass) == largest(effect);
  }
  out.rank_correlation.ci = percentile_interval(correlations, curves.degrees(sequences));
  if (sequences > 1) out.p_same = same / static_cast<double>(curves.resamples);

  if (!curves.until_decided) out.p_largest = 0;
  std::vector<bool> idle(tested.size(), true);
  for (const Rows& run : runs) {
    for (std::size_t i = 0; i < tested.size(); ++i) {
      mass[i] = changed[i].of(run[row]->mass[tested[i]]);
      idle[i] = idle[i] && mass[i] >= appreciable_mass && shown_idle(*run[row], tested[i]);
    }
    if (!curves.until_decided)
      out.p_largest = std::max(out.p_largest, p_largest(*run[row], tested, mass, curves.sequences));
  }
  for (std::size_t i = 0; i < tested.size(); ++i) {
    if (idle[i]) out.idle.push_back(static_cast<int>(tested[i]));
  }
  return out;
}

}  // namespace routescope::analysis
