// The paper's three claims beside what a study finds: every sentence follows from the numbers of its last step.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "analysis/commands/tables.h"
#include "analysis/findings/claims.h"
#include "analysis/report/compare.h"
#include "analysis/report/page.h"

namespace routescope::analysis {
namespace {

std::string of_runs(std::size_t count, std::size_t runs) {
  if (runs == 1) return count == 1 ? "in the one run" : "not in the one run";
  return fmt::format("in {} of {} runs", count, runs);
}

/// What the findings are of: the first ablation.
std::string ablation_name(const Study& study) {
  const std::vector<Ablation>& ablations = study.runs.front().record.identity.settings.ablations;
  return ablations.empty() ? "none" : to_string(ablations.front());
}

std::string p_text(double p) {
  if (std::isnan(p)) return "not tested";
  return p < 0.001 ? "p < 0.001" : "p = " + number_text("{:.3f}", p);
}

double largest(const std::vector<double>& values) {
  double out = 0;
  for (double value : values) {
    if (!std::isnan(value)) out = std::max(out, std::abs(value));
  }
  return out;
}

/// The largest range over steps and runs of what claim 1 denies to a wrapped model.
std::string trained_contrast(const Study& study) {
  std::vector<double> shares;
  for (const StudyRun& run : study.runs) shares.push_back(run.findings.content.back().mean_share);
  const OverRuns share = over_runs(shares);
  return fmt::format(
      "In the models trained with routing, {} of the variance of the weights lies between tokens of one route (mean "
      "over reads, then over runs; from {} to {}).",
      percent_text(share.mean), percent_text(share.least), percent_text(share.greatest));
}

Claim wrapped_claim(const Study& study) {
  Claim claim;
  claim.title = "A standard model wrapped by a recency bias routes independently of content, as its closed form says";
  if (!study.baseline) {
    claim.verdict = "not examined here";
    claim.evidence.push_back("No wrapped baseline was given (--baseline).");
  } else {
    const ProbeRow& row = study.baseline->rows.back();
    const double error = row.closed_form_error;
    claim.verdict = holds_closed_form(row) ? "holds to rounding" : "does not hold for this baseline";
    claim.evidence.push_back(fmt::format(
        "Largest difference between a weight and its closed form: {}.",
        std::isnan(error) ? "none can be given, since its queries are not zero" : number_text("{:.1e}", error)));
    claim.evidence.push_back(fmt::format("Largest standard deviation of a weight over tokens: {}.",
                                         number_text("{:.1e}", greatest_spread(row))));
    if (const AblationEffects* freeze = row.find(Ablation::freeze)) {
      claim.evidence.push_back(
          fmt::format("Freezing the weights of any slice to their means changes the loss by at most {} nats a token.",
                      number_text("{:.1e}", largest(freeze->delta_nll()))));
    }
  }
  claim.evidence.push_back(trained_contrast(study));
  return claim;
}

std::string motif_title(const Motif& motif) {
  if (motif.name == "embedding_early_mlp") return "Embedding sources through early MLPs";
  if (motif.name == "current_early") return "The current state through early attention and MLPs";
  if (motif.name == "history_late_attn") return "Older history through late attention";
  return motif.name;
}

const Motif* motif_named(const Findings& findings, const std::string& name) {
  for (const Motif& motif : findings.motifs) {
    if (motif.name == name) return &motif;
  }
  return nullptr;
}

std::string motif_sentence(const Study& study, const Motif& motif, const char* finding) {
  const std::size_t last = study.last();
  if (std::isnan(motif.effect[last].value)) return motif_title(motif) + ": not tested: no read to change.";
  std::string out = fmt::format("{}: {}. Effect ({}) {} nats a token", motif_title(motif), finding,
                                ablation_name(study), estimate_text(motif.effect[last]));
  if (std::isnan(motif.excess[last].value)) return out + ".";
  std::size_t alone = 0;
  for (const StudyRun& run : study.runs) {
    const Motif* own = motif_named(run.findings, motif.name);
    alone += own && shown_above_control(*own);
  }
  out += fmt::format(", matched control {}, excess {}; the excess is shown to be above zero {} taken alone. {}",
                     estimate_text(motif.control[last]), estimate_text(motif.excess[last]),
                     of_runs(alone, study.runs.size()),
                     shown_above_control(motif) ? fmt::format("It is shown from step {:.0f} on", motif.shown_from)
                                                : "It is not shown at the last step");
  if (study.steps.size() < 2) return out + ".";
  return out + fmt::format("; onset by cause: {}, by mass: {}.", onset_text(motif.onset, study.steps),
                           onset_text(motif.mass_onset, study.steps));
}

Claim motif_claim(const Study& study) {
  Claim claim;
  claim.title =
      "Training from scratch grows three localised motifs: embedding (early MLP), current state (early attention and "
      "MLP), older history (late attention)";
  const std::size_t last = study.last();
  std::size_t named = 0, present = 0, controlled = 0;
  std::vector<std::string> others;
  for (const Motif& motif : study.pooled.motifs) {
    const Estimate& excess = motif.excess[last];
    if (!motif.of_paper) {
      others.push_back(fmt::format("{} ({})", motif.name, estimate_text(excess)));
      continue;
    }
    ++named;
    const char* finding = "not shown to exceed its matched control";
    controlled += !std::isnan(excess.value);
    if (std::isnan(excess.value)) {
      finding = "not measured against a control";
    } else if (shown_above_control(motif)) {
      finding = "present, above its matched control";
      ++present;
    } else if (excess.ci.upper < 0) {
      finding = "less than its matched control: other sources of the same weight matter more";
    }
    claim.evidence.push_back(motif_sentence(study, motif, finding));
  }
  claim.verdict = named == 0        ? "not examined here"
                  : controlled == 0 ? "not decided: no controls were measured"
                                    : fmt::format("{} of {} found", present, named);
  if (named == 0) claim.evidence.push_back("The probes hold no ablation of the 18 slices.");
  if (controlled == 0) return claim;
  const std::string in_every_run = study.runs.size() > 1 ? " in every run" : "";
  claim.evidence.push_back(
      others.empty() ? "No other slice is shown to exceed its matched control" + in_every_run + "."
                     : fmt::format("Other slices that are shown to exceed their matched control{} (excess, nats a "
                                   "token): {}.",
                                   in_every_run, list_text(others)));
  claim.evidence.push_back(
      "The three motifs are tested one-sided at 5 % each, other slices two-sided after Holm's adjustment.");
  return claim;
}

Claim dissociation_claim(const Study& study) {
  Claim claim;
  claim.title =
      "Mass and causal importance dissociate: the heaviest slice is not the most important, and some mass is idle";
  if (study.pooled.dissociation.empty() || study.pooled.dissociation.back().largest_mass < 0) {
    claim.verdict = "not examined here";
    claim.evidence.push_back("The probes hold no ablation of the 18 slices.");
    return claim;
  }
  const Dissociation& pooled = study.pooled.dissociation.back();
  const Estimate& rank = pooled.rank_correlation;
  const char* relation = rank.ci.lower > 0   ? "heavier slices tend to matter more"
                         : rank.ci.upper < 0 ? "heavier slices tend to matter less"
                                             : "mass does not tell the order of effects, as far as can be told";
  claim.evidence.push_back(fmt::format("Spearman's correlation of mass and effect ({}) over the slices: {}; {}.",
                                       ablation_name(study), estimate_text(rank, "{:+.2f}"), relation));

  std::size_t differ = 0;
  std::vector<std::string> pairs;
  for (const StudyRun& run : study.runs) {
    const Dissociation& own = run.findings.dissociation.back();
    if (own.largest_mass < 0 || own.largest_effect < 0) continue;
    differ += largest_differ(own);
    pairs.push_back(fmt::format("{}: {} against {}, {}", run.name,
                                slice_name(static_cast<std::size_t>(own.largest_mass)),
                                slice_name(static_cast<std::size_t>(own.largest_effect)), p_text(own.p_largest)));
  }
  claim.evidence.push_back(fmt::format("The slice of the largest mass is shown not to have the largest effect {} ({}).",
                                       of_runs(differ, study.runs.size()), list_text(pairs)));

  std::vector<std::string> idle;
  for (int slice : pooled.idle) idle.push_back(slice_name(static_cast<std::size_t>(slice)));
  std::size_t with_idle = 0;
  for (const StudyRun& run : study.runs) with_idle += !run.findings.dissociation.back().idle.empty();
  const double margin = study.runs.front().record.identity.settings.margin;
  claim.evidence.push_back(
      fmt::format("Slices with at least {:.0f} % of the mass and an effect shown to lie within \u00b1{:g} nats a "
                  "token, in every run: {}. "
                  "Some such slice is there {}.",
                  100 * appreciable_mass, margin, list_text(idle), of_runs(with_idle, study.runs.size())));

  const bool all_differ = largest_differ(pooled), all_idle = !pooled.idle.empty();
  claim.verdict = std::isnan(pooled.p_same) ? "not decided: one sequence is no sample"
                  : all_differ && all_idle  ? "holds in every run"
                  : !differ && !with_idle   ? "not shown"
                  : all_differ              ? "the largest differ; no slice is shown idle in every run"
                  : all_idle                ? "idle mass in every run; the largest are not shown to differ in each"
                                            : "mixed over runs";
  return claim;
}

}  // namespace

std::vector<Claim> claims_of(const Study& study) {
  return {wrapped_claim(study), motif_claim(study), dissociation_claim(study)};
}

}  // namespace routescope::analysis
