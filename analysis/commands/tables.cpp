#include "analysis/commands/tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "analysis/findings/claims.h"
#include "analysis/findings/findings.h"
#include "analysis/probe/closed_form.h"
#include "analysis/writers/writers.h"

namespace routescope::analysis {
namespace {

constexpr std::size_t emergence_columns = 3, name_width = 21;

std::string number(const char* format, double value) {
  return std::isnan(value) ? "-" : fmt::format(fmt::runtime(format), value);
}

std::string p_text(double p) {
  return p < 1e-4 ? "<0.0001" : number("{:.4f}", p);
}

std::string with_interval(const Estimate& estimate) {
  if (std::isnan(estimate.value)) return "-";
  if (std::isnan(estimate.ci.lower)) return fmt::format("{:+.4f}", estimate.value);
  return fmt::format("{:+.4f} [{:+.4f}, {:+.4f}]", estimate.value, estimate.ci.lower, estimate.ci.upper);
}

std::string shortened(const std::string& name) {
  return name.size() <= name_width ? name : name.substr(0, name_width - 2) + "..";
}

/// What is said of a set: by the confidence sequence if it decides, else by the adjusted p values.
std::string verdict(const SetEffect& set, bool until_decided) {
  if (std::isnan(set.delta_nll.value)) return "-";
  if (until_decided) {
    constexpr const char* names[] = {"open", "effect", "absent"};
    return names[static_cast<std::size_t>(set.decision)];
  }
  if (set.p_equivalence_adjusted < significance) return "absent";
  return set.p_adjusted < significance ? "effect" : "open";
}

void trim(std::string& line) {
  while (!line.empty() && line.back() == ' ') line.pop_back();
}

std::string ablation_table(const AblationEffects& effects, const ProbeRow& row, const ProbeIdentity& identity) {
  std::string out = fmt::format("{}\n{:<21} {:>6} {:>7} {:<26} {:<26} {:>7} {:>7} {:>4} {:>6}\n",
                                to_string(effects.ablation), "set", "mass", "contr.", "delta nll [95 %], nats/tok",
                                "excess over control [95 %]", "p", "p abs.", "cov.", "found");
  for (std::size_t s = 0; s < effects.sets.size(); ++s) {
    const SetEffect& set = effects.sets[s];
    std::string line =
        fmt::format("{:<21} {:>6} {:>7} {:<26} {:<26} {:>7} {:>7} {:>4} {:>6}", shortened(identity.sets[s]),
                    number("{:.4f}", row.mass[s]), number("{:.4f}", row.contribution[s]), with_interval(set.delta_nll),
                    with_interval(set.control.excess), p_text(set.p_adjusted), p_text(set.p_equivalence_adjusted),
                    number("{:.2f}", set.coverage), verdict(set, identity.settings.until_decided));
    trim(line);
    out += line + "\n";
  }
  return out;
}

bool denoises(const ProbeIdentity& identity) {
  return identity.tokens.is_task() && identity.task.direction == Direction::denoising;
}

/// What of an effect is left where not everything behind the set responds.
std::string ways_table(const AblationEffects& effects, const ProbeIdentity& identity) {
  const ProbeSettings& settings = identity.settings;
  if (!settings.frozen && !settings.direct) return "";
  std::string out = fmt::format(
      "{}, later routing held (frozen) or only the head responding (direct)\n"
      "{:<21} {:<26} {:<26} {:<26} {:<17}\n",
      to_string(effects.ablation), "set", "total [95 %], nats/tok", "frozen", "direct", "repaired, %");
  const auto percent = [](const Estimate& share) {
    if (std::isnan(share.value)) return std::string("-");
    return fmt::format("{:.0f} [{:.0f}, {:.0f}]", 100 * share.value, 100 * share.ci.lower, 100 * share.ci.upper);
  };
  for (std::size_t s = 0; s < effects.sets.size(); ++s) {
    const SetEffect& set = effects.sets[s];
    std::string line = fmt::format("{:<21} {:<26} {:<26} {:<26} {:<17}", shortened(identity.sets[s]),
                                   with_interval(set.delta_nll), with_interval(set.frozen.delta_nll),
                                   with_interval(set.direct.delta_nll), percent(set.frozen.share));
    trim(line);
    out += line + "\n";
  }
  const Estimate& all = effects.repaired_share;
  if (std::isnan(all.value)) return out;
  const bool damage = !denoises(identity);
  const char* verdict =
      all.ci.lower > 0
          ? (damage ? "later routing repairs some of the damage" : "later routing undoes some of the change")
      : all.ci.upper < 0 ? (damage ? "later routing adds to the damage" : "later routing adds to the change")
                         : "no repair by later routing is shown";
  return out +
         fmt::format("all sets together, repaired: {} % of the frozen effect [95 %]: {}\n", percent(all), verdict);
}

/// Of a task: how its answers fare, in the intact model and by each set.
std::string metrics_table(const ProbeRow& row, const ProbeIdentity& identity) {
  if (!identity.tokens.is_task()) return "";
  std::string out = fmt::format("task {}, {}: answers have", identity.task.name, to_string(identity.task.direction));
  for (std::size_t m = 0; m < num_metrics; ++m)
    out += fmt::format("{} {} {}", m == 0 ? "" : ",", metric_names[m], number("{:.4f}", row.intact_metrics[m]));
  out += "\n";
  for (const AblationEffects& effects : row.ablations) {
    out += fmt::format("{:<21}", to_string(effects.ablation));
    for (const char* name : metric_names) out += fmt::format(" {:<30}", std::string("delta ") + name + " [95 %]");
    trim(out);
    out += "\n";
    for (std::size_t s = 0; s < effects.sets.size(); ++s) {
      std::string line = fmt::format("{:<21}", shortened(identity.sets[s]));
      for (const MetricEffect& metric : effects.sets[s].metrics)
        line += fmt::format(" {:<30}", with_interval(metric.delta));
      trim(line);
      out += line + "\n";
    }
  }
  return out;
}

/// The tested set with the largest effect, which in denoising is the lowest; the number of sets if there is none.
std::size_t strongest_set(const AblationEffects& effects, bool denoising) {
  std::size_t strongest = effects.sets.size();
  for (std::size_t s = 0; s < effects.sets.size(); ++s) {
    const double effect = effects.sets[s].delta_nll.value;
    if (std::isnan(effect)) continue;
    const double so_far = strongest == effects.sets.size() ? effect : effects.sets[strongest].delta_nll.value;
    if (strongest == effects.sets.size() || (denoising ? effect < so_far : effect > so_far)) strongest = s;
  }
  return strongest;
}

/// An onset at the first of the steps may have been before it.
std::string steps_with_interval(const Estimate& estimate, std::int64_t first) {
  if (std::isnan(estimate.value)) return "not shown";
  return fmt::format("{}step {:.0f} [{:.0f}, {:.0f}]",
                     estimate.value <= static_cast<double>(first) ? "at or before " : "", estimate.value,
                     estimate.ci.lower, estimate.ci.upper);
}

std::string set_name(const AnalysisRecord& record, int set) {
  return set < 0 ? "none" : record.identity.sets[static_cast<std::size_t>(set)];
}

std::string dissociation_text(const Dissociation& last, const AnalysisRecord& record) {
  std::string out;
  for (MassKind kind : mass_kinds) {
    const MassAgainstEffect& of = last.of(kind);
    if (std::isnan(of.rank_correlation)) continue;
    out += fmt::format(
        "  free {} and effect: rank correlation {}, Kendall's tau {}\n    within a sublayer and depth: tau {}, p {}\n",
        kind == MassKind::alpha ? "mass" : "contribution", number("{:+.3f}", of.rank_correlation),
        with_interval({of.over.tau, of.over.ci}), with_interval({of.within.tau, of.within.ci}), p_text(of.within.p));
    for (int set : of.idle) {
      out += fmt::format("    idle: {} has {:.3f} and an effect shown to lie within {:.4g} nats/token\n",
                         set_name(record, set), of.free_mass[static_cast<std::size_t>(set)], record.rows.back().margin);
    }
  }
  out += fmt::format("    largest free mass {}, largest effect {}\n", set_name(record, last.largest_mass),
                     set_name(record, last.largest_effect));
  for (std::size_t c = 0; c < num_contests; ++c) {
    if (last.contests[c].differ())
      out += fmt::format("    {}: the heaviest is shown not to be the strongest, p {}\n", to_string(contest_name(c)),
                         p_text(last.contests[c].p_adjusted));
  }
  return out;
}

}  // namespace

std::string cost_line(const ProbeCost& cost) {
  if (!(cost.plain > 0)) return "";
  return fmt::format(
      "cost: {:.1f} plain evaluations ({:.1f} without shared prefixes, {:.1f} without stopping early); {:.1f} s, "
      "{:.1f} x plain\n",
      cost.computed / cost.plain, cost.unshared / cost.plain, cost.undecided / cost.plain, cost.seconds,
      cost.seconds / cost.plain_seconds);
}

std::string row_table(const ProbeRow& row, const ProbeIdentity& identity) {
  std::string out =
      fmt::format("step {}: intact nll {:.4f} nats/token, {} sequences of {} tokens ({})\n", row.step, row.intact_nll,
                  identity.tokens.sequences, identity.tokens.positions, identity.tokens.origin);
  for (const AblationEffects& effects : row.ablations)
    out += ablation_table(effects, row, identity) + ways_table(effects, identity);
  out += metrics_table(row, identity);
  if (!row.atlas.empty()) {
    const Atlas& atlas = row.atlas;
    out += fmt::format(
        "atlas: {} routes masked, {} drawn at random: rank correlation {} (first order {}), median relative error {}\n",
        atlas.checked.size(), atlas.random_checks(), number("{:.2f}", atlas.rank_correlation),
        number("{:.2f}", atlas.first_order_rank_correlation), number("{:.3f}", atlas.median_relative_error));
    out += fmt::format("  {} s for the estimates, {} plain passes and {} s for the masks\n",
                       number("{:.1f}", atlas.estimate_seconds), number("{:.1f}", atlas.check_passes),
                       number("{:.1f}", atlas.check_seconds));
  }
  if (!row.writers.empty()) out += writers_table(row.writers, identity.plan());
  if (!std::isnan(row.closed_form_error)) {
    out += row.closed_form_error <= f32_rounding
               ? fmt::format("alpha is the softmax of its biases, to {:.2g}: routing does not depend on content\n",
                             row.closed_form_error)
               : fmt::format("queries are zero, but alpha is not the softmax of its biases: off by {:.2g}\n",
                             row.closed_form_error);
  }
  return out + cost_line(row.cost);
}

std::string step_line(const ProbeRow& row, const ProbeIdentity& identity) {
  const std::string head = fmt::format("step {:>8}  nll {:.4f}  ", row.step, row.intact_nll);
  if (row.ablations.empty()) return head + "nothing ablated";
  const AblationEffects& effects = row.ablations.front();
  const std::size_t strongest = strongest_set(effects, denoises(identity));
  if (strongest == effects.sets.size()) return head + "no set can be changed";
  const SetEffect& set = effects.sets[strongest];
  const std::string effect = fmt::format("largest {} {:+.4f}", identity.sets[strongest], set.delta_nll.value);
  if (std::isnan(set.control.delta_nll)) return head + effect;
  return head + effect + fmt::format(" (control {:+.4f})", set.control.delta_nll);
}

std::string emergence_table(const AnalysisRecord& record) {
  const std::size_t sets = record.identity.sets.size();
  if (record.rows.empty() || record.identity.settings.ablations.empty()) return "";
  const Ablation ablation = record.identity.settings.ablations.front();
  std::vector<double> strongest(sets, -1.0);
  for (const ProbeRow& row : record.rows) {
    for (std::size_t s = 0; s < sets; ++s) {
      const double value = row.effects(ablation).sets[s].delta_nll.value;
      if (!std::isnan(value)) strongest[s] = std::max(strongest[s], std::abs(value));
    }
  }
  std::vector<std::size_t> order(sets);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return strongest[a] > strongest[b]; });
  order.resize(std::min(sets, emergence_columns));

  std::string out = fmt::format("delta nll [95 %], nats/token, of {} of the {} strongest sets\n{:>8} {:>8}",
                                to_string(ablation), order.size(), "step", "nll");
  for (std::size_t s : order) out += fmt::format("  {:<28}", shortened(record.identity.sets[s]));
  trim(out);
  for (const ProbeRow& row : record.rows) {
    out += fmt::format("\n{:>8} {:>8.4f}", row.step, row.intact_nll);
    for (std::size_t s : order) out += fmt::format("  {:<28}", with_interval(row.effects(ablation).sets[s].delta_nll));
    trim(out);
  }
  return out + "\n";
}

namespace {

/// Of the last row: what both parts of the routes do beyond either, where that is shown.
std::string interactions_text(const Findings& findings, const AnalysisRecord& record) {
  std::string out;
  for (std::size_t d = 0; !findings.interactions.empty() && d < findings.interactions.back().size(); ++d) {
    const PartInteraction& parts = findings.interactions.back()[d];
    std::string shown;
    for (std::size_t s = 0; s < parts.delta_nll.size(); ++s) {
      if (parts.p_adjusted[s] < significance)
        shown += fmt::format("\n    {:<21} {}, p {}", shortened(record.identity.sets[s]),
                             with_interval(parts.delta_nll[s]), p_text(parts.p_adjusted[s]));
    }
    out += fmt::format("  {}: both parts minus value minus key{}\n", parts_name(parts.donor),
                       shown.empty() ? ": no interaction is shown" : shown);
  }
  return out;
}

}  // namespace

std::string findings_text(const Findings& findings, const AnalysisRecord& record) {
  if (findings.step.empty() || record.rows.empty()) return "";
  std::string out = fmt::format("at step {}\n", findings.step.back());
  if (!findings.content.empty() && !std::isnan(findings.content.back().mean_share)) {
    out += fmt::format("  content: {:.4f} of the variance of routing weights lies between tokens, mean over reads\n",
                       findings.content.back().mean_share);
  }
  out += interactions_text(findings, record);
  if (denoises(record.identity))
    return out + "  motifs and masses: not tested in denoising, where routes that matter lower the nll\n";
  for (const Motif& motif : findings.motifs) {
    out += fmt::format("  motif {}{}", motif.name, motif.of_paper ? "" : " (not named by the paper)");
    if (std::isnan(motif.effect.back().value)) {
      out += ": not tested: no read to change\n";
      continue;
    }
    out += fmt::format("\n    effect of {} {}, over its control {}\n",
                       to_string(record.identity.settings.ablations.front()), with_interval(motif.effect.back()),
                       with_interval(motif.excess.back()));
    if (findings.step.size() < 2) continue;
    out += fmt::format("    onset by cause {}, by mass {}\n", steps_with_interval(motif.onset, findings.step.front()),
                       steps_with_interval(motif.mass_onset, findings.step.front()));
  }
  if (!findings.dissociation.empty()) out += dissociation_text(findings.dissociation.back(), record);
  return out;
}

}  // namespace routescope::analysis
