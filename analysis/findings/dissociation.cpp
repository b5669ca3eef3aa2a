#include "analysis/findings/dissociation.h"

#include <algorithm>
#include <cmath>

#include "analysis/routes/free_mass.h"
#include "analysis/routes/route_sets.h"
#include "analysis/statistics/documents.h"

namespace routescope::analysis {
namespace {

// RandomKey::what of the permutations, beyond those of the curves.
constexpr std::uint64_t of_permutations = (std::uint64_t{1} << 32) + 16;

const std::vector<double>& by_sequence(const ProbeRow& row, MassKind kind) {
  return kind == MassKind::alpha ? row.mass_sequence : row.contribution_sequence;
}

/// Slices that are weighed and ablated as one: their mass is free mass over all their reads.
struct Item {
  int label = -1;
  std::vector<std::size_t> slices;
};

class Row {
 public:
  Row(const Basis& basis, std::size_t row) : basis_(basis), row_(row) {
    const Ablation ablation = basis.runs.front()[row]->ablations.front().ablation;
    for (const RouteSet& slice : slice_sets(basis.plan)) free_.emplace_back(basis.plan, ablation, slice);
    for (std::size_t s = 0; s < free_.size(); ++s)
      if (!std::isnan(basis.curves.effect.value(row, s)) && free_[s].changed > 0) tested_.push_back(s);
  }

  const std::vector<std::size_t>& tested() const { return tested_; }

  Observed effect(const Item& item, const Item& minus = {}) const {
    return observe(basis_.runs, row_, basis_.sequences, basis_.documents,
                   [&](const Rows& run, std::size_t at, std::size_t i) {
                     double sum = 0;
                     const std::vector<SetEffect>& sets = run[at]->ablations.front().sets;
                     for (std::size_t s : item.slices) sum += sets[s].delta_nll_sequence[i];
                     for (std::size_t s : minus.slices) sum -= sets[s].delta_nll_sequence[i];
                     return sum;
                   });
  }
  Observed mass(MassKind kind, const Item& item, const Item& minus = {}) const {
    return observe(
        basis_.runs, row_, basis_.sequences, basis_.documents, [&](const Rows& run, std::size_t at, std::size_t i) {
          return free_mass(kind, *run[at], item, i) - (minus.slices.empty() ? 0 : free_mass(kind, *run[at], minus, i));
        });
  }

  std::vector<Item> items(const ContestName& name) const {
    std::vector<Item> items;
    for (std::size_t s : tested_) {
      if (s / 3 % 2 != name.sublayer) continue;
      const int label = static_cast<int>(name.families ? s / 6 : s);
      if (items.empty() || items.back().label != label) items.push_back({label, {}});
      items.back().slices.push_back(s);
    }
    return items;
  }

  Contest contest(const ContestName& name) const {
    const std::vector<Item> all = items(name);
    Contest out;
    if (all.size() < 2) return out;
    std::vector<double> masses, effects;
    for (const Item& item : all) {
      masses.push_back(mass(name.mass, item).mean());
      double sum = 0;  // the means of decided slices are over fewer sequences
      for (std::size_t s : item.slices) sum += basis_.curves.effect.value(row_, s);
      effects.push_back(sum);
    }
    const auto largest = [](const std::vector<double>& values) {
      return static_cast<std::size_t>(std::max_element(values.begin(), values.end()) - values.begin());
    };
    if (std::isnan(masses.front())) return out;
    const std::size_t top = largest(masses);
    out.heaviest = all[top].label;
    out.strongest = all[largest(effects)].label;
    const Learned& learned = basis_.learned[row_];
    if (!learned.known() || basis_.curves.until_decided) return out;
    out.p = learned.shown() ? 0 : 1;
    out.p_alone = 0;
    const double others = static_cast<double>(all.size()) - 1;
    const Row initial(basis_, static_cast<std::size_t>(initial_row(basis_.steps)));
    for (std::size_t i = 0; i < all.size(); ++i) {
      double beaten = 1, beaten_alone = 1;
      for (std::size_t j = 0; j < all.size(); ++j) {
        if (j == i) continue;
        const Observed gap = effect(all[j], all[i]);
        const double alone = gap.p_above(learned.margin);
        const double grown = difference(gap, initial.effect(all[j], all[i])).p_above(learned.margin);
        if (!std::isnan(alone)) beaten_alone = std::min(beaten_alone, others * alone);
        if (!std::isnan(alone) && !std::isnan(grown)) beaten = std::min(beaten, others * std::max(alone, grown));
      }
      if (i != top) {
        const double lighter = others * mass(name.mass, all[top], all[i]).p_above(near_tie);
        beaten = std::min(1.0, 2 * std::min(lighter, beaten));
        beaten_alone = std::min(1.0, 2 * std::min(lighter, beaten_alone));
      }
      out.p = std::max(out.p, beaten);
      out.p_alone = std::max(out.p_alone, beaten_alone);
    }
    return out;
  }

  MassAgainstEffect against(MassKind kind, std::uint64_t seed) const {
    MassAgainstEffect out;
    out.free_mass.assign(free_.size(), nan);
    std::vector<std::vector<double>> masses, effects;  // [tested][document], means over runs
    std::vector<double> mass_means, effect_means;
    std::vector<std::int64_t> groups;
    for (std::size_t s : tested_) {
      const Item item{static_cast<int>(s), {s}};
      const Observed of_mass = mass(kind, item), of_effect = effect(item);
      out.free_mass[s] = of_mass.mean();
      masses.push_back(over_runs(of_mass));
      effects.push_back(over_runs(of_effect));
      mass_means.push_back(of_mass.mean());
      effect_means.push_back(basis_.curves.effect.value(row_, s));
      groups.push_back(static_cast<std::int64_t>(s % 6));
    }
    out.rank_correlation = rank_correlation(mass_means, effect_means);
    out.within_reads = within_reads(kind, seed);
    if (basis_.curves.until_decided || masses.empty() || std::isnan(mass_means.front())) return out;
    const auto key = [&](std::uint64_t which) { return key_of(seed, kind, which); };
    const std::vector<std::int64_t> one(groups.size(), 0);
    out.over = concordance(masses, effects, one, key(0));
    out.within = concordance(masses, effects, groups, key(1));
    out.idle = idle(kind);
    return out;
  }

 private:
  double free_mass(MassKind kind, const ProbeRow& row, const Item& item, std::size_t sequence) const {
    const std::vector<double>& values = by_sequence(row, kind);
    if (values.empty()) return nan;
    double held = 0, changed = 0;
    for (std::size_t s : item.slices) {
      held += values[s * basis_.sequences + sequence] * free_[s].reads - free_[s].certain;
      changed += free_[s].changed;
    }
    return held / changed;
  }

  static std::vector<double> over_runs(const Observed& observed) {
    std::vector<double> out(observed.values.front().size(), 0.0);
    for (const std::vector<double>& run : observed.values)
      for (std::size_t i = 0; i < out.size(); ++i) out[i] += run[i] / static_cast<double>(observed.values.size());
    return out;
  }

  RandomKey key_of(std::uint64_t seed, MassKind kind, std::uint64_t which) const {
    return {seed, static_cast<std::uint64_t>(basis_.steps[row_]), 4 * static_cast<std::uint64_t>(kind) + which,
            of_permutations};
  }

  /// Means over runs, which mask the same routes.
  Concordance within_reads(MassKind kind, std::uint64_t seed) const {
    std::vector<std::vector<double>> masses, effects;
    std::vector<std::int64_t> groups;
    for (const CheckedRoute& route : basis_.runs.front()[row_]->atlas.checked) {
      double mass = 0, effect = 0;
      for (const Rows& run : basis_.runs) {
        const ProbeRow& row = *run[row_];
        const std::vector<double>& means = kind == MassKind::alpha ? row.alpha_mean : row.contribution_mean;
        const auto same = std::find_if(
            row.atlas.checked.begin(), row.atlas.checked.end(),
            [&](const CheckedRoute& other) { return other.read == route.read && other.column == route.column; });
        const auto at = static_cast<std::size_t>(route.read * basis_.plan.num_columns() + route.column);
        mass += means.empty() ? nan : means[at];
        effect += same == row.atlas.checked.end() ? nan : same->true_effect.value;
      }
      if (std::isnan(mass) || std::isnan(effect)) continue;
      masses.push_back({mass});
      effects.push_back({effect});
      groups.push_back(route.read);
    }
    if (masses.size() < 2) return {};
    Concordance out = concordance(masses, effects, groups, key_of(seed, kind, 2));
    if (out.pairs < least_pairs) return {};
    out.ci = {nan, nan};
    return out;
  }

  std::vector<int> idle(MassKind kind) const {
    std::vector<bool> idle(tested_.size(), true);
    for (const Rows& run : basis_.runs) {
      const ProbeRow& row = *run[row_];
      std::vector<double> p;
      for (std::size_t s : tested_) {
        const std::vector<double> values =
            document_values(row.ablations.front().sets[s].delta_nll_sequence, basis_.documents);
        p.push_back(row.margin > 0 ? p_share_within(values, row.margin, idle_share) : 1);
      }
      p = holm_adjust(p);
      for (std::size_t i = 0; i < tested_.size(); ++i) {
        double mass = 0;
        const Item item{0, {tested_[i]}};
        for (std::size_t q = 0; q < basis_.sequences; ++q)
          mass += free_mass(kind, row, item, q) / static_cast<double>(basis_.sequences);
        idle[i] = idle[i] && mass >= appreciable_mass && p[i] < significance &&
                  row.ablations.front().sets[tested_[i]].p_equivalence_adjusted < significance;
      }
    }
    std::vector<int> out;
    for (std::size_t i = 0; i < tested_.size(); ++i)
      if (idle[i] && basis_.learned[row_].shown()) out.push_back(static_cast<int>(tested_[i]));
    return out;
  }

  const Basis& basis_;
  std::size_t row_;
  std::vector<FreeMass> free_;
  std::vector<std::size_t> tested_;
};

/// The slice of the largest value; NaN is below all.
int largest(std::span<const double> values, std::span<const std::size_t> of) {
  int out = -1;
  for (std::size_t s : of)
    if (!std::isnan(values[s]) && (out < 0 || values[s] > values[static_cast<std::size_t>(out)]))
      out = static_cast<int>(s);
  return out;
}

}  // namespace

std::string to_string(MassKind kind) {
  return kind == MassKind::alpha ? "alpha" : "contribution";
}

ContestName contest_name(std::size_t contest) {
  return {contest / 4, contest / 2 % 2 == 1, mass_kinds[contest % 2]};
}

std::string to_string(const ContestName& name) {
  return std::string(name.sublayer == 0 ? "attn" : "mlp") + (name.families ? ".families." : ".slices.") +
         to_string(name.mass);
}

Dissociation dissociation_of(const Basis& basis, std::size_t row, std::uint64_t seed) {
  const Row at(basis, row);
  Dissociation out;
  for (MassKind kind : mass_kinds) out.mass[static_cast<std::size_t>(kind)] = at.against(kind, seed);
  std::vector<double> effects;
  for (std::size_t s = 0; s < basis.curves.sets; ++s) effects.push_back(basis.curves.effect.value(row, s));
  out.largest_effect = largest(effects, at.tested());
  out.largest_mass = largest(out.of(MassKind::alpha).free_mass, at.tested());
  std::vector<double> p, alone;
  for (std::size_t c = 0; c < num_contests; ++c) {
    out.contests[c] = at.contest(contest_name(c));
    p.push_back(out.contests[c].p);
    alone.push_back(out.contests[c].p_alone);
  }
  p = holm_adjust(p);
  alone = holm_adjust(alone);
  for (std::size_t c = 0; c < num_contests; ++c) {
    out.contests[c].p_adjusted = p[c];
    out.contests[c].p_alone = alone[c];
  }
  return out;
}

}  // namespace routescope::analysis
