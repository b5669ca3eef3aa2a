#include "analysis/findings.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "analysis/resampled.h"
#include "data/error.h"
#include "model/config.h"

namespace routescope {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double significance = 0.05;

using Rows = std::vector<const ProbeRow*>;

// ---- dissociation

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

// ---- motifs

/// A curve over rows with its resamples [row][resample].
struct Strength {
  std::vector<double> value;
  std::vector<std::vector<double>> resampled;
  std::size_t sequences = 0;

  std::vector<Estimate> estimates() const {
    std::vector<Estimate> out;
    for (std::size_t row = 0; row < value.size(); ++row)
      out.push_back({value[row], percentile_interval(resampled[row], sequences)});
    return out;
  }
  /// One-sided, at 95 %.
  bool shown_above_zero(std::size_t row) const {
    return value[row] > 0 && percentile_interval(resampled[row], sequences, 1 - 2 * significance).lower > 0;
  }
};

/// scale times the sum over the sets, minus `offset`.
Strength sum_of(const Curves& curves, const ResampledCurves& of, std::span<const std::size_t> sets, double scale = 1,
                double offset = 0) {
  const double start = sets.empty() ? nan : -offset;
  Strength out{std::vector<double>(curves.rows, start),
               std::vector<std::vector<double>>(curves.rows, std::vector<double>(curves.resamples, start)),
               curves.sequences};
  for (std::size_t row = 0; row < curves.rows; ++row) {
    for (std::size_t set : sets) {
      out.value[row] += scale * of.value(row, set);
      const auto resampled = of.resampled(row, set);
      for (std::size_t b = 0; b < curves.resamples; ++b) out.resampled[row][b] += scale * resampled[b];
    }
  }
  return out;
}

/// The first step from which on `curve(row)` stays above half its last value; infinite if that is not above zero.
template <class Curve>
double half_rise(const Curve& curve, std::span<const std::int64_t> steps) {
  std::size_t row = steps.size() - 1;
  const double half = 0.5 * curve(row);
  if (!(half > 0)) return infinity;
  while (row > 0 && curve(row - 1) > half) --row;
  return static_cast<double>(steps[row]);
}

struct Onset {
  bool shown = false;
  double value = nan;
  std::vector<double> resampled;

  Onset(const Strength& strength, std::span<const std::int64_t> steps) {
    shown = strength.shown_above_zero(steps.size() - 1);
    if (!shown) return;
    value = half_rise([&](std::size_t row) { return strength.value[row]; }, steps);
    for (std::size_t b = 0; b < strength.resampled.front().size(); ++b)
      resampled.push_back(half_rise([&](std::size_t row) { return strength.resampled[row][b]; }, steps));
  }

  Estimate estimate(std::size_t sequences) const { return {value, percentile_interval(resampled, sequences)}; }
};

Estimate lead_of(const Onset& cause, const Onset& mass, std::size_t sequences) {
  if (!cause.shown || !mass.shown) return {};
  const auto lead = [](double a, double b) { return std::log1p(a) - std::log1p(b); };
  std::vector<double> resampled;
  for (std::size_t b = 0; b < cause.resampled.size(); ++b)
    resampled.push_back(lead(cause.resampled[b], mass.resampled[b]));
  return {lead(cause.value, mass.value), percentile_interval(resampled, sequences)};
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

  for (std::size_t row = steps.size(); row-- > 0 && excess.shown_above_zero(row);)
    motif.shown_from = static_cast<double>(steps[row]);
  const Onset cause(excess, steps), mass(sum_of(curves, curves.mass, all, share, motif.uniform_mass), steps);
  motif.onset = cause.estimate(curves.sequences);
  motif.mass_onset = mass.estimate(curves.sequences);
  motif.lead = lead_of(cause, mass, curves.sequences);
  return motif;
}

/// The mass of every slice if each read weighed its sources alike.
std::vector<double> uniform_masses(const ReadPlan& plan, std::span<const Slice> slices) {
  std::vector<double> alpha(static_cast<std::size_t>(plan.num_routed() * plan.num_columns()), nan);
  for (int r = 0; r < plan.num_routed(); ++r) {
    const Read& read = plan.reads[static_cast<std::size_t>(r)];
    for (int column : read.columns)
      alpha[static_cast<std::size_t>(r * plan.num_columns() + column)] = 1 / static_cast<double>(read.columns.size());
  }
  return slice_masses(slices, alpha, plan.num_columns());
}

/// The excess of a slice is shown to be above zero at the last row, in every run.
bool found_in(std::span<const Rows> runs, std::size_t slice) {
  return std::all_of(runs.begin(), runs.end(), [&](const Rows& run) {
    const AblationEffects& effects = run.back()->ablations.front();
    return !effects.excess.empty() && effects.excess[slice] > 0 && effects.excess_p_adjusted[slice] < significance;
  });
}

std::vector<Motif> motifs_of(const Curves& curves, std::span<const std::int64_t> steps, std::span<const Rows> runs,
                             const ReadPlan& plan) {
  const std::vector<Slice> slices = make_slices(plan);
  const std::vector<double> uniform = uniform_masses(plan, slices);
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

// ---- content

// Weights are f32 and at most 1, sums of a few roundings: what varies by less than four units in the last place of 1
// has not varied.
constexpr double rounding_variance = 0x1p-22 * 0x1p-22;

Content content_of(const ProbeRow& row, const ReadPlan& plan) {
  Content content;
  double sum = 0, counted = 0;
  for (int r = 0; r < plan.num_routed(); ++r) {
    const Read& read = plan.reads[static_cast<std::size_t>(r)];
    const double sources = static_cast<double>(read.columns.size());
    double within = 0, between = 0;
    for (int column : read.columns) {
      const auto at = static_cast<std::size_t>(r * plan.num_columns() + column);
      const double deviation = row.alpha_mean[at] - 1 / sources;  // the weights of a token sum to one
      within += row.alpha_variance[at] / sources;
      between += deviation * deviation / sources;
    }
    const double total = within + between;
    content.share.push_back(read.columns.size() < 2 ? nan : within <= rounding_variance ? 0 : within / total);
    if (read.columns.size() < 2) continue;
    sum += content.share.back();
    counted += 1;
  }
  content.mean_share = sum / counted;
  return content;
}

// ---- records

void check_sizes(const ProbeRow& row, std::size_t sets, std::size_t sequences, const ReadPlan& plan) {
  const auto check = [&](const char* name, std::size_t found, std::size_t expected) {
    if (found != expected)
      throw Error("row of step {}: {} has {} values, expected {}", row.step, name, found, expected);
  };
  const auto routes = static_cast<std::size_t>(plan.num_routed() * plan.num_columns());
  check("alpha_mean", row.alpha_mean.size(), routes);
  check("alpha_variance", row.alpha_variance.size(), routes);
  if (row.ablations.empty()) return;
  const AblationEffects& effects = row.ablations.front();
  check("mass", row.mass.size(), sets);
  check("mass_sequence", row.mass_sequence.size(), sets * sequences);
  check("delta_nll_sequence", effects.delta_nll_sequence.size(), sets * sequences);
  check("p_equivalence_adjusted", effects.p_equivalence_adjusted.size(), sets);
  check("decision", effects.decision.size(), sets);
  if (effects.control_sequence.empty()) return;
  check("control_sequence", effects.control_sequence.size(), sets * sequences);
  check("excess", effects.excess.size(), sets);
  check("excess_p_adjusted", effects.excess_p_adjusted.size(), sets);
}

void check_alike(std::span<const AnalysisRecord* const> records) {
  const ProbeIdentity& first = records.front()->identity;
  for (std::size_t i = 1; i < records.size(); ++i) {
    const ProbeIdentity& other = records[i]->identity;
    const char* differs = other.model_config != first.model_config ? "model configuration"
                          : other.tokens.sequences != first.tokens.sequences ||
                                  other.tokens.positions != first.tokens.positions ||
                                  other.tokens.ids != first.tokens.ids
                              ? "probe tokens"
                          : other.sets != first.sets            ? "sets"
                          : !(other.settings == first.settings) ? "probe settings"
                                                                : nullptr;
    if (differs) throw Error("run {} of {}: its {} differ from those of run 1", i + 1, records.size(), differs);
  }
}

std::vector<std::int64_t> common_steps(std::span<const AnalysisRecord* const> records) {
  std::vector<std::int64_t> steps;
  for (const ProbeRow& row : records.front()->rows) {
    if (std::all_of(records.begin(), records.end(), [&](const auto* one) { return one->find(row.step) != nullptr; }))
      steps.push_back(row.step);
  }
  if (steps.empty() && records.size() > 1) throw Error("the {} runs have no probed step in common", records.size());
  return steps;
}

Findings findings_of(std::span<const AnalysisRecord* const> records) {
  check_alike(records);
  const ProbeIdentity& identity = records.front()->identity;
  Findings out;
  out.runs = static_cast<int>(records.size());
  out.step = common_steps(records);
  if (out.step.empty()) return out;
  const ReadPlan plan(ModelConfig::from_json(nlohmann::json::parse(identity.model_config), "model_config"));
  const auto sequences = static_cast<std::size_t>(identity.tokens.sequences);

  std::vector<Rows> runs;
  bool ablated = true;
  for (const AnalysisRecord* record : records) {
    Rows& rows = runs.emplace_back();
    for (std::int64_t step : out.step) {
      rows.push_back(record->find(step));
      check_sizes(*rows.back(), identity.sets.size(), sequences, plan);
      ablated = ablated && !rows.back()->ablations.empty();
    }
  }
  for (std::size_t row = 0; row < out.step.size(); ++row) {
    std::vector<Content> contents;
    for (const Rows& run : runs) contents.push_back(content_of(*run[row], plan));
    Content& pooled = out.content.emplace_back(contents.front());
    const auto over_runs = [&](auto&& number) {
      double sum = 0;
      for (const Content& content : contents) sum += number(content);
      return sum / static_cast<double>(contents.size());
    };
    pooled.mean_share = over_runs([](const Content& content) { return content.mean_share; });
    for (std::size_t read = 0; read < pooled.share.size(); ++read)
      pooled.share[read] = over_runs([&](const Content& content) { return content.share[read]; });
  }

  std::vector<std::string> slice_names;
  for (const Slice& slice : make_slices(plan)) slice_names.push_back(slice.name());
  if (!ablated || identity.sets != slice_names) return out;
  const Curves curves = make_curves(runs, identity.sets.size(), sequences, identity.settings.seed, findings_resamples);
  for (std::size_t row = 0; row < out.step.size(); ++row)
    out.dissociation.push_back(dissociation_of(curves, row, runs));
  out.motifs = motifs_of(curves, out.step, runs, plan);
  return out;
}

}  // namespace

Findings find(const AnalysisRecord& record) {
  const AnalysisRecord* const one[] = {&record};
  return findings_of(one);
}

Findings pool(std::span<const AnalysisRecord> records) {
  if (records.empty()) throw Error("no runs to pool");
  std::vector<const AnalysisRecord*> all;
  for (const AnalysisRecord& record : records) all.push_back(&record);
  return findings_of(all);
}

}  // namespace routescope
