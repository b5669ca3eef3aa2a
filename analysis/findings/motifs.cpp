#include "analysis/findings/motifs.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "analysis/findings/onset.h"
#include "analysis/routes/route_sets.h"
#include "analysis/routes/slices.h"
#include "model/pass/wrap.h"

namespace routescope::analysis {
namespace {

/// scale times the sum over the sets, minus `offset`.
Strength sum_of(const Curves& curves, const ResampledCurves& of, std::span<const std::size_t> sets, double scale = 1,
                double offset = 0) {
  const double start = sets.empty() ? nan : -offset;
  Strength out{std::vector<double>(curves.rows, start),
               std::vector<std::vector<double>>(curves.rows, std::vector<double>(curves.resamples, start)),
               std::vector<double>(curves.rows, curves.degrees(curves.sequences))};
  for (std::size_t row = 0; row < curves.rows; ++row) {
    for (std::size_t set : sets) {
      if (&of != &curves.mass)
        out.degrees[row] = std::min(out.degrees[row], curves.degrees(curves.used[row * curves.sets + set]));
      out.value[row] += scale * of.value(row, set);
      const auto resampled = of.resampled(row, set);
      for (std::size_t b = 0; b < curves.resamples; ++b) out.resampled[row][b] += scale * resampled[b];
    }
  }
  return out;
}

Motif motif_of(std::string name, std::vector<int> slices, bool of_paper, const Curves& curves,
               std::span<const std::int64_t> steps, std::span<const double> uniform) {
  Motif motif;
  motif.name = std::move(name);
  motif.slices = std::move(slices);
  motif.of_paper = of_paper;
  std::vector<std::size_t> all, tested;
  motif.uniform_mass = 0;
  for (int slice : motif.slices) {
    const auto s = static_cast<std::size_t>(slice);
    all.push_back(s);
    if (!std::isnan(curves.effect.value(steps.size() - 1, s))) tested.push_back(s);
    motif.uniform_mass += uniform[s] / static_cast<double>(motif.slices.size());
  }
  const double share = 1 / static_cast<double>(all.size());
  const Strength excess = sum_of(curves, curves.excess, tested);
  motif.effect = sum_of(curves, curves.effect, tested).estimates();
  motif.control = sum_of(curves, curves.control, tested).estimates();
  motif.excess = excess.estimates();
  motif.mass = sum_of(curves, curves.mass, all, share).estimates();

  if (!curves.until_decided) motif.shown_from = shown_from(excess, steps);
  const Onset cause(excess, steps), mass(sum_of(curves, curves.mass, all, share, motif.uniform_mass), steps);
  motif.onset = cause.estimate();
  motif.mass_onset = mass.estimate();
  motif.lead = lead_of(cause, mass);
  return motif;
}

/// The mass of every slice where training starts: queries are zero, and the current source has the initial bias.
std::vector<double> initial_masses(const model::ReadPlan& plan, double recency_bias) {
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

/// The excess of a slice is shown to be above zero at the last row, in every run.
bool found_in(std::span<const Rows> runs, std::size_t slice) {
  return std::all_of(runs.begin(), runs.end(), [&](const Rows& run) {
    const ControlEffect& control = run.back()->ablations.front().sets[slice].control;
    return control.excess.value > 0 && control.excess_p_adjusted < significance;
  });
}

}  // namespace

std::vector<Motif> motifs_of(const Curves& curves, std::span<const std::int64_t> steps, std::span<const Rows> runs,
                             const model::ReadPlan& plan, double recency_bias) {
  const std::vector<Slice> slices = make_slices(plan);
  const std::vector<double> uniform = initial_masses(plan, recency_bias);
  const auto index_of = [&](const std::string& name) {
    const auto found = std::find_if(slices.begin(), slices.end(), [&](const Slice& s) { return s.name() == name; });
    return static_cast<int>(found - slices.begin());
  };
  const std::pair<const char*, std::vector<int>> of_paper[] = {
      {"embedding_early_mlp", {index_of("embedding.mlp.early")}},
      {"current_early", {index_of("current.attn.early"), index_of("current.mlp.early")}},
      {"history_late_attn", {index_of("history.attn.late")}}};
  std::vector<Motif> motifs;
  std::vector<int> named;
  for (const auto& [name, of] : of_paper) {
    named.insert(named.end(), of.begin(), of.end());
    motifs.push_back(motif_of(name, of, true, curves, steps, uniform));
  }
  for (int s = 0; s < num_slices; ++s) {
    const auto slice = static_cast<std::size_t>(s);
    if (std::find(named.begin(), named.end(), s) == named.end() && found_in(runs, slice))
      motifs.push_back(motif_of(slices[slice].name(), {s}, false, curves, steps, uniform));
  }
  return motifs;
}

}  // namespace routescope::analysis
