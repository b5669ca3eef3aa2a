// The paper's three claims, and what this run's findings say of each, in words.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "analysis/commands/tables.h"
#include "analysis/findings/claims.h"
#include "analysis/report/page.h"
#include "analysis/report/report_parts.h"
#include "analysis/routes/slices.h"

namespace routescope::analysis::report {

using nlohmann::json;

namespace {

struct Claim {
  const char* claim;
  std::string verdict, tone = "open";
  std::vector<std::string> evidence = {};

  json data() const { return {{"claim", claim}, {"verdict", verdict}, {"tone", tone}, {"evidence", evidence}}; }
};

std::string share_text(double share) {
  return std::isnan(share) ? "\u2013" : share < 5e-5 ? "0" : number_text("{:.1f}", 100 * share) + "\u00a0%";
}

// ---- 1: a wrapped model's routing knows nothing of the tokens ----

json wrapped_claim(const ReportInput& input, const Findings& findings) {
  Claim out{
      "A standard model wrapped in a recency-bias schedule routes without regard to content: its weights equal the "
      "schedule\u2019s closed form.",
      "No wrapped baseline beside this run"};
  std::size_t wrapped = 0, hold = 0;
  for (const ReportSubject& subject : input.subjects) {
    if (!subject.baseline) continue;
    ++wrapped;
    const ProbeRow& row = subject.analysis.rows.back();
    const double error = row.closed_form_error, spread = greatest_spread(row);
    const bool holds = holds_closed_form(row);
    hold += holds;
    out.evidence.push_back(fmt::format(
        "{}: a weight differs from the closed form by at most {}, and over tokens by a standard deviation of "
        "at most {} ({} f32 rounding).",
        subject.name, std::isnan(error) ? "\u2013 (its queries are not zero)" : number_text("{:.1e}", error),
        number_text("{:.1e}", spread), holds ? "within" : "beyond"));
  }
  if (wrapped > 0) {
    out.tone = hold == wrapped ? "yes" : hold > 0 ? "part" : "no";
    out.verdict = hold == wrapped ? "Holds for the wrapped baseline" + std::string(wrapped > 1 ? "s" : "")
                                  : fmt::format("Holds for {} of {} baselines", hold, wrapped);
  }
  if (!findings.content.empty()) {
    out.evidence.push_back(
        fmt::format("Trained here: {} of the variance of routing weights lies between tokens of a route (mean over "
                    "reads, step {}); a wrapped model has 0.",
                    share_text(findings.content.back().mean_share), thousands_text(findings.step.back())));
  }
  return out.data();
}

// ---- 2: three motifs ----

/// What the findings are of: the first ablation.
std::string ablation_name(const ReportInput& input) {
  const std::vector<Ablation>& ablations = input.subjects.front().analysis.identity.settings.ablations;
  return ablations.empty() ? "none" : to_string(ablations.front());
}

std::string motif_text(const Motif& motif, const std::string& ablation, std::span<const std::int64_t> steps) {
  const Estimate none;
  const Estimate& effect = motif.effect.empty() ? none : motif.effect.back();
  const Estimate& excess = motif.excess.empty() ? none : motif.excess.back();
  if (std::isnan(effect.value)) return motif_title(motif.slices) + ": not tested: no read to change.";
  std::string out = fmt::format("{}: its ablation ({}) costs {} nats per token", motif_title(motif.slices), ablation,
                                estimate_text(effect, "{:+.3f}"));
  if (std::isnan(excess.value)) return out + "; no control was measured.";
  out += fmt::format(", {} of that beyond sources of equal mass", estimate_text(excess, "{:+.3f}"));
  if (!shown_above_control(motif))
    return out + (excess.ci.upper < 0 ? ": less than theirs." : ": not shown to be more than theirs.");
  out += fmt::format("; shown from step {:.0f} on", motif.shown_from);
  if (steps.size() < 2 || std::isnan(motif.onset.value)) return out + ".";
  out += fmt::format("; step at which half of it is there: {}", onset_text(motif.onset, steps));
  return out + (std::isnan(motif.mass_onset.value) ? "; its mass is not shown to end above uniform."
                                                   : fmt::format("; half of its mass\u2019s rise above uniform: {}.",
                                                                 onset_text(motif.mass_onset, steps)));
}

json motif_claim(const ReportInput& input, const Findings& findings) {
  Claim out{
      "Training from scratch gives three localised motifs: the embedding through early MLPs, the current state "
      "through early attention and MLPs, older history through late attention.",
      "Not measured"};
  std::size_t named = 0, present = 0, controlled = 0;
  std::vector<const Motif*> others;
  for (const Motif& motif : findings.motifs) {
    if (!motif.of_paper) {
      others.push_back(&motif);
      continue;
    }
    ++named;
    present += shown_above_control(motif);
    controlled += !motif.excess.empty() && !std::isnan(motif.excess.back().value);
    out.evidence.push_back(motif_text(motif, ablation_name(input), findings.step));
  }
  if (named == 0) return out.data();
  if (controlled == 0) {
    out.verdict = "Not decided: effects without controls";
    return out.data();
  }
  out.tone = present == named ? "yes" : present > 0 ? "part" : "no";
  out.verdict =
      fmt::format("{} of {} motifs shown above their controls", present == 0 ? "None" : std::to_string(present), named);
  out.evidence.push_back(
      "The motifs of the paper are tested one-sided at 5\u00a0% each, other slices two-sided after Holm\u2019s "
      "adjustment.");
  std::sort(others.begin(), others.end(),
            [](const Motif* a, const Motif* b) { return a->excess.back().value > b->excess.back().value; });
  const std::string in_every_run = input.pooled ? " in every run." : ".";
  std::vector<std::string> names;
  for (const Motif* motif : others) {
    names.push_back(
        fmt::format("{} ({})", motif_title(motif->slices), number_text("{:+.3f}", motif->excess.back().value)));
  }
  out.evidence.push_back(
      names.empty() ? "No slice outside the three is shown to exceed its control" + in_every_run
                    : fmt::format("Localised to these three? {} more slice{} shown to exceed {} control{} {}.",
                                  names.size(), names.size() > 1 ? "s are" : " is", names.size() > 1 ? "their" : "its",
                                  input.pooled ? " in every run:" : ":", list_text(names)));
  return out.data();
}

// ---- 3: mass and effect dissociate ----

/// A slice's mean mass and effect over the runs at a step.
std::string slice_text(const ReportInput& input, int slice, std::int64_t step) {
  double mass = 0, effect = 0;
  int runs = 0;
  const auto at = static_cast<std::size_t>(slice);
  for (const ReportSubject& subject : input.subjects) {
    const ProbeRow* row = subject.analysis.find(step);
    if (subject.baseline || row == nullptr || row->ablations.empty()) continue;
    mass += row->mass[at];
    effect += row->ablations.front().sets[at].delta_nll.value;
    if (++runs == 1 && !input.pooled) break;
  }
  return fmt::format("{} (mass {}, effect {})", motif_title({slice}), number_text("{:.2f}", mass / runs),
                     number_text("{:+.3f}", effect / runs));
}

json dissociation_claim(const ReportInput& input, const Findings& findings) {
  Claim out{
      "Routing mass and causal importance dissociate: the heaviest slice is not the strongest, and some mass has no "
      "detectable causal role.",
      "Not measured"};
  if (findings.dissociation.empty() || findings.dissociation.back().largest_effect < 0 ||
      findings.dissociation.back().largest_mass < 0)
    return out.data();
  const Dissociation& last = findings.dissociation.back();
  const std::int64_t step = findings.step.back();
  const bool same = last.largest_mass == last.largest_effect;
  const bool apart = largest_differ(last), together = same && last.p_same > 0.95;
  const bool idle = !last.idle.empty();
  out.tone = apart && idle ? "yes" : apart || idle ? "part" : together ? "no" : "open";
  out.verdict = apart && idle ? "Dissociated in both senses"
                : apart       ? "The heaviest slice is not the strongest; no mass is shown idle"
                : idle        ? "Some mass is shown idle; the heaviest slice may be the strongest"
                : together    ? "Not dissociated: the heaviest slice is the strongest"
                              : "Not decided";
  out.evidence.push_back(fmt::format("Rank correlation of mass and effect ({}) over the slices: {}.",
                                     ablation_name(input), estimate_text(last.rank_correlation, "{:+.2f}")));
  const std::string heaviest = slice_text(input, last.largest_mass, step);
  const std::string p =
      std::isnan(last.p_same) || std::isnan(last.p_largest)
          ? "Whether none is stronger than the heaviest was not tested."
          : "p = " + number_text("{:.2g}", last.p_largest) + " that none is stronger than the heaviest.";
  out.evidence.push_back(
      same ? fmt::format("Heaviest and strongest is {}; so in {} of resamples.", heaviest, share_text(last.p_same))
           : fmt::format("Heaviest: {}. Strongest: {}. {}", heaviest, slice_text(input, last.largest_effect, step), p));
  const double margin = input.subjects.front().analysis.identity.settings.margin;
  std::vector<std::string> names;
  for (int slice : last.idle) names.push_back(slice_text(input, slice, step));
  out.evidence.push_back(
      idle
          ? fmt::format("Mass of {} or more, and an effect shown to lie within \u00b1{} nats per token: {}.",
                        appreciable_mass, margin, list_text(names))
          : fmt::format("No slice with a mass of {} or more has an effect shown to lie within \u00b1{} nats per token.",
                        appreciable_mass, margin));
  return out.data();
}

}  // namespace

json claims(const ReportInput& input) {
  if (input.subjects.empty()) return json::array();
  const Findings& findings = input.pooled ? *input.pooled : input.subjects.front().findings;
  return json::array(
      {wrapped_claim(input, findings), motif_claim(input, findings), dissociation_claim(input, findings)});
}

}  // namespace routescope::analysis::report
