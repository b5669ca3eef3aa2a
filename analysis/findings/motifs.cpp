#include "analysis/findings/motifs.h"

#include <algorithm>
#include <cmath>

#include "analysis/findings/onset.h"
#include "analysis/routes/route_sets.h"
#include "analysis/routes/slices.h"
#include "model/wrap/wrap.h"

namespace routescope::analysis {
namespace {

using Control = ControlEffect SetEffect::*;

std::size_t index(std::ptrdiff_t i) {
  return static_cast<std::size_t>(i);
}

const SetEffect& effect_of(const Rows& run, std::size_t row, std::size_t set) {
  return run[row]->ablations.front().sets[set];
}

/// scale times the sum over the sets, minus `offset`.
Strength sum_of(const Curves& curves, const ResampledCurves& of, std::span<const std::size_t> sets, double scale = 1,
                double offset = 0) {
  const double start = sets.empty() ? nan : -offset;
  Strength out{std::vector<double>(curves.rows, start),
               std::vector<std::vector<double>>(curves.rows, std::vector<double>(curves.resamples, start)),
               std::vector<double>(curves.rows, curves.freedom)};
  for (std::size_t row = 0; row < curves.rows; ++row) {
    for (std::size_t set : sets) {
      out.value[row] += scale * of.value(row, set);
      const auto resampled = of.resampled(row, set);
      for (std::size_t b = 0; b < curves.resamples; ++b) out.resampled[row][b] += scale * resampled[b];
    }
  }
  return out;
}

/// Sum over the sets of effect minus control.
Observed excess_at(const Basis& basis, std::span<const std::size_t> sets, Control control, std::size_t row) {
  return observe(basis.runs, row, basis.sequences, basis.documents,
                 [&](const Rows& run, std::size_t at, std::size_t i) {
                   double sum = 0;
                   for (std::size_t set : sets) {
                     const SetEffect& effect = effect_of(run, at, set);
                     const ControlEffect& of_control = effect.*control;
                     sum += of_control.delta_nll_sequence.empty()
                                ? nan
                                : effect.delta_nll_sequence[i] - of_control.delta_nll_sequence[i];
                   }
                   return sum;
                 });
}

/// The motifs that the paper names, and their slices.
struct Named {
  const char* name;
  std::vector<std::string> slices;
};
const std::vector<Named>& of_paper() {
  static const std::vector<Named> motifs = {{"embedding_early_mlp", {"embedding.mlp.early"}},
                                            {"current_early", {"current.attn.early", "current.mlp.early"}},
                                            {"history_late_attn", {"history.attn.late"}}};
  return motifs;
}
bool is_named(std::size_t slice) {
  const std::string name = slice_name(slice);
  return std::any_of(of_paper().begin(), of_paper().end(), [&](const Named& motif) {
    return std::find(motif.slices.begin(), motif.slices.end(), name) != motif.slices.end();
  });
}

/// The largest p value, over the sets and the other tested slices of each one's sublayer kind and depth, of the
/// hypothesis that the set's effect is not larger by more than the margin. Slices that another of the paper's motifs
/// names are left out: two motifs of one place cannot both be ahead.
double p_localised(const Basis& basis, std::span<const std::size_t> sets, std::size_t row) {
  double largest = nan;
  for (std::size_t set : sets) {
    for (std::size_t other = set % 6; other < num_slices; other += 6) {
      if (other == set || is_named(other) || std::isnan(basis.curves.effect.value(row, other))) continue;
      const Observed more = observe(
          basis.runs, row, basis.sequences, basis.documents, [&](const Rows& run, std::size_t at, std::size_t i) {
            return effect_of(run, at, set).delta_nll_sequence[i] - effect_of(run, at, other).delta_nll_sequence[i];
          });
      const double p = more.p_above(basis.learned[row].margin);
      largest = std::isnan(p) ? 1 : std::fmax(largest, p);
    }
  }
  return largest;
}

class MotifMaker {
 public:
  MotifMaker(const Basis& basis, double recency_bias) : basis_(basis), uniform_(initial_masses(recency_bias)) {}

  /// All but p and what follows from it.
  Motif make(std::string name, std::vector<int> slices, bool of_paper) const {
    const Curves& curves = basis_.curves;
    Motif motif;
    motif.name = std::move(name);
    motif.slices = std::move(slices);
    motif.of_paper = of_paper;
    motif.uniform_mass = 0;
    for (int slice : motif.slices)
      motif.uniform_mass += uniform_[index(slice)] / static_cast<double>(motif.slices.size());
    const std::vector<std::size_t> all = all_of(motif), tested = tested_of(motif);
    const double share = 1 / static_cast<double>(all.size());
    const auto of_effect = [](const ProbeRow& row, std::size_t set, std::size_t i) {
      return row.ablations.front().sets[set].delta_nll_sequence[i];
    };
    const auto of_control = [](const ProbeRow& row, std::size_t set, std::size_t i) {
      const std::vector<double>& values = row.ablations.front().sets[set].control.delta_nll_sequence;
      return values.empty() ? nan : values[i];
    };
    const auto of_mass = [&](std::vector<double> ProbeRow::*member) {
      return [member, n = basis_.sequences](const ProbeRow& row, std::size_t set, std::size_t i) {
        return (row.*member).empty() ? nan : (row.*member)[set * n + i];
      };
    };
    motif.effect = estimates(tested, curves.effect, 1, of_effect);
    motif.control = estimates(tested, curves.control, 1, of_control);
    motif.excess = excess(tested, curves.excess, &SetEffect::control);
    motif.contribution_excess = excess(tested, curves.contribution_excess, &SetEffect::contribution_control);
    motif.mass = estimates(all, curves.mass, share, of_mass(&ProbeRow::mass_sequence));
    motif.contribution = estimates(all, curves.contribution, share, of_mass(&ProbeRow::contribution_sequence));
    for (std::size_t row = 0; row < curves.rows; ++row) {
      motif.change.emplace_back();
      motif.tests.push_back(tests(tested, of_paper, row, motif.change.back()));
    }
    return motif;
  }

  /// `p` is there.
  void finish(Motif& motif) const {
    const Curves& curves = basis_.curves;
    motif.shown_from = shown_from(motif.p, basis_.steps);
    const std::vector<std::size_t> all = all_of(motif);
    const double share = 1 / static_cast<double>(all.size());
    const std::size_t last = curves.rows - 1;
    const Observed above_uniform = observe(basis_.runs, last, basis_.sequences, basis_.documents,
                                           [&](const Rows& run, std::size_t row, std::size_t i) {
                                             double sum = -motif.uniform_mass;
                                             for (std::size_t set : all)
                                               sum += share * run[row]->mass_sequence[set * basis_.sequences + i];
                                             return sum;
                                           });
    const Onset cause(sum_of(curves, curves.excess, tested_of(motif)), basis_.steps, motif.p.back() < significance);
    const Onset mass(sum_of(curves, curves.mass, all, share, motif.uniform_mass), basis_.steps,
                     above_uniform.p_above() < significance);
    motif.onset = cause.shown ? cause.estimate() : Estimate{};
    motif.mass_onset = mass.shown ? mass.estimate() : Estimate{};
    motif.lead = lead_of(cause, mass);
  }

 private:
  static std::vector<std::size_t> all_of(const Motif& motif) { return {motif.slices.begin(), motif.slices.end()}; }
  std::vector<std::size_t> tested_of(const Motif& motif) const {
    std::vector<std::size_t> tested = all_of(motif);
    std::erase_if(tested,
                  [&](std::size_t s) { return std::isnan(basis_.curves.effect.value(basis_.curves.rows - 1, s)); });
    return tested;
  }

  bool pooled() const { return basis_.runs.size() > 1; }

  /// quantity(row, set, sequence) summed over the sets, times `scale`; intervals of one run from its curve.
  template <class Quantity>
  std::vector<Estimate> estimates(std::span<const std::size_t> sets, const ResampledCurves& of, double scale,
                                  const Quantity& quantity) const {
    if (!pooled() || sets.empty()) return sum_of(basis_.curves, of, sets, scale).estimates();
    std::vector<Estimate> out;
    for (std::size_t row = 0; row < basis_.curves.rows; ++row) {
      out.push_back(observe(basis_.runs, row, basis_.sequences, basis_.documents,
                            [&](const Rows& run, std::size_t at, std::size_t i) {
                              double sum = 0;
                              for (std::size_t set : sets) sum += scale * quantity(*run[at], set, i);
                              return sum;
                            })
                        .estimate());
    }
    return out;
  }

  std::vector<Estimate> excess(std::span<const std::size_t> sets, const ResampledCurves& of, Control control) const {
    if (!pooled() || sets.empty()) return sum_of(basis_.curves, of, sets).estimates();
    std::vector<Estimate> out;
    for (std::size_t row = 0; row < basis_.curves.rows; ++row)
      out.push_back(excess_at(basis_, sets, control, row).estimate());
    return out;
  }

  MotifTests tests(std::span<const std::size_t> tested, bool of_paper, std::size_t row, Estimate& change) const {
    MotifTests out;
    if (tested.empty() || basis_.curves.until_decided) return out;
    const Observed excess = excess_at(basis_, tested, &SetEffect::control, row);
    const double margin = basis_.learned[row].margin;
    out.excess = excess.p_above(margin);
    out.contribution_excess = excess_at(basis_, tested, &SetEffect::contribution_control, row).p_above(margin);
    out.learned = basis_.learned[row].p;
    if (const std::ptrdiff_t initial = initial_row(basis_.steps); initial >= 0) {
      const Observed since = difference(excess, excess_at(basis_, tested, &SetEffect::control, index(initial)));
      const Observed other = difference(excess_at(basis_, tested, &SetEffect::contribution_control, row),
                                        excess_at(basis_, tested, &SetEffect::contribution_control, index(initial)));
      change = since.estimate();
      const double p = since.p_above(margin), p_other = other.p_above(margin);
      out.change = index(initial) == row ? 1 : std::isnan(p) || std::isnan(p_other) ? nan : std::max(p, p_other);
    }
    if (of_paper) out.localised = p_localised(basis_, tested, row);
    return out;
  }

  /// The mass of every slice where training starts: queries are zero, and the current source has the initial bias.
  std::vector<double> initial_masses(double recency_bias) const {
    const model::ReadPlan& plan = basis_.plan;
    std::vector<double> alpha(static_cast<std::size_t>(plan.num_routed() * plan.num_columns()), nan);
    for (int r = 0; r < plan.num_routed(); ++r) {
      const model::Read& read = plan.reads[static_cast<std::size_t>(r)];
      const model::WrappedAlpha closed = model::wrapped_alpha(recency_bias, std::ssize(read.columns));
      for (int column : read.columns)
        alpha[static_cast<std::size_t>(r * plan.num_columns() + column)] =
            column == read.columns.back() ? closed.current : closed.other;
    }
    return set_masses(slice_sets(plan), alpha, plan.num_columns());
  }

  const Basis& basis_;
  std::vector<double> uniform_;
};

/// Holm's adjustment at each row over the motifs of one family.
void adjust(std::span<Motif> motifs, std::size_t rows) {
  for (std::size_t row = 0; row < rows; ++row) {
    std::vector<double> p;
    for (const Motif& motif : motifs) p.push_back(motif.tests[row].largest());
    const std::vector<double> adjusted = holm_adjust(p);
    for (std::size_t m = 0; m < motifs.size(); ++m) motifs[m].p.push_back(adjusted[m]);
  }
}

}  // namespace

double MotifTests::largest() const {
  double out = 0;
  for (double p : {excess, contribution_excess, change, localised, learned}) {
    if (std::isnan(p)) return nan;
    out = std::max(out, p);
  }
  return out;
}

std::vector<Motif> motifs_of(const Basis& basis, double recency_bias) {
  const MotifMaker maker(basis, recency_bias);
  std::vector<Motif> motifs, others;
  for (const Named& named : of_paper()) {
    std::vector<int> slices;
    for (int s = 0; s < num_slices; ++s)
      if (std::count(named.slices.begin(), named.slices.end(), slice_name(index(s))) > 0) slices.push_back(s);
    motifs.push_back(maker.make(named.name, slices, true));
  }
  for (int s = 0; s < num_slices; ++s) {
    if (is_named(index(s))) continue;
    Motif& other = others.emplace_back(maker.make(slice_name(index(s)), {s}, false));
    for (MotifTests& tests : other.tests)
      if (!std::isnan(tests.excess)) tests.localised = 0;  // is not asked of them
  }
  adjust(motifs, basis.curves.rows);
  adjust(others, basis.curves.rows);
  for (Motif& other : others) {
    for (MotifTests& tests : other.tests) tests.localised = nan;
    if (other.p.back() < significance) motifs.push_back(std::move(other));
  }
  for (Motif& motif : motifs) maker.finish(motif);
  return motifs;
}

}  // namespace routescope::analysis
