#include "analysis/report/claim_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "analysis/findings/claims.h"
#include "analysis/report/wording.h"
#include "analysis/routes/slices.h"

namespace routescope::analysis {
namespace {

/// The runs that the claims are about.
std::span<const StudyRun> runs_of(const Study& study) {
  return std::span(study.runs).first(study.pooled_runs());
}

std::string in_every_run(const Study& study) {
  return study.pooled_runs() > 1 ? " in every run" : "";
}

/// "; in 2 of 3 runs taken alone it is shown to be more"; nothing for a single run.
std::string of_runs(const Study& study, std::size_t count, const char* what) {
  if (study.pooled_runs() == 1) return {};
  return fmt::format("; in {} of {} runs taken alone {}", count, study.pooled_runs(), what);
}

/// Findings are those of the first ablation.
std::string ablation_name(const Study& study) {
  const std::vector<Ablation>& ablations = study.runs.front().record.identity.settings.ablations;
  return ablations.empty() ? "none" : to_string(ablations.front());
}

// ---- 1: a wrapped model routes every token alike ----

void add_baseline(Claim& out, const StudyBaseline& baseline) {
  const ProbeRow& row = baseline.record.rows.back();
  const std::string distance =
      std::isnan(row.closed_form_error)
          ? "its queries are not zero, so that its weights have no closed form"
          : "its weights differ from the closed form by at most " + number_text("{:.1e}", row.closed_form_error);
  out.evidence.push_back(fmt::format(
      "{}: {}; over tokens they have a standard deviation of at most {}. That is {} f32 rounding.", baseline.name,
      distance, number_text("{:.1e}", greatest_spread(row)), holds_closed_form(row) ? "within" : "beyond"));
  const AblationEffects* freeze = row.find(Ablation::freeze);
  if (freeze == nullptr) return;
  double most = 0;
  for (double effect : freeze->delta_nll()) most = std::fmax(most, std::abs(effect));
  out.evidence.push_back(
      fmt::format("{}: replacing the weights of any one slice by their means changes the loss by at most {} nats per "
                  "token.",
                  baseline.name, number_text("{:.1e}", most)));
}

std::string trained_contrast(const Study& study) {
  std::vector<double> shares;
  for (const StudyRun& run : runs_of(study)) shares.push_back(run.findings.content.back().mean_share);
  const OverRuns share = over_runs(shares);
  const std::string range =
      study.pooled_runs() > 1
          ? fmt::format(", mean over runs; from {} to {}", percent_text(share.least), percent_text(share.greatest))
          : "";
  return fmt::format(
      "Trained with routing: {} of the variance of the weights lies between the tokens of one route (mean over "
      "reads{}; step {}). A wrapped model has 0.",
      percent_text(share.mean), range, thousands_text(study.findings().step.back()));
}

Claim wrapped_claim(const Study& study) {
  Claim out{
      "A standard model wrapped in a recency-bias schedule routes without regard to content: its weights equal the "
      "schedule\u2019s closed form.",
      "Not examined: no wrapped baseline was given (--baseline)"};
  std::size_t hold = 0;
  for (const StudyBaseline& baseline : study.baselines) {
    hold += holds_closed_form(baseline.record.rows.back());
    add_baseline(out, baseline);
  }
  const std::size_t wrapped = study.baselines.size();
  if (wrapped > 0) {
    out.tone = hold == wrapped ? "yes" : hold > 0 ? "part" : "no";
    out.verdict = hold == wrapped ? "Holds for the wrapped baseline" + std::string(wrapped > 1 ? "s" : "")
                                  : fmt::format("Holds for {} of {} wrapped baselines", hold, wrapped);
  }
  if (!study.findings().content.empty()) out.evidence.push_back(trained_contrast(study));
  return out;
}

// ---- 2: three motifs ----

/// Runs that show the motif above its control when they are taken alone.
std::size_t runs_that_show(const Study& study, const Motif& motif) {
  const auto runs = runs_of(study);
  return static_cast<std::size_t>(std::count_if(runs.begin(), runs.end(), [&](const StudyRun& run) {
    return std::any_of(run.findings.motifs.begin(), run.findings.motifs.end(),
                       [&](const Motif& own) { return own.name == motif.name && shown_above_control(own); });
  }));
}

std::string motif_sentence(const Study& study, const Motif& motif) {
  const Estimate& effect = motif.effect.back();
  const Estimate& excess = motif.excess.back();
  const std::string title = slices_text(motif.slices);
  if (std::isnan(effect.value)) return title + ": not tested, since the ablation can change no such read.";
  std::string out = fmt::format("{}: ablating it ({}) costs {} nats per token", title, ablation_name(study),
                                estimate_text(effect, "{:+.3f}"));
  if (std::isnan(excess.value)) return out + "; no control was measured.";
  out += fmt::format(", {} more than ablating other sources of the same mass", estimate_text(excess, "{:+.3f}"));
  const std::string alone = of_runs(study, runs_that_show(study, motif), "it is shown to be more");
  if (!shown_above_control(motif))
    return out + (excess.ci.upper < 0 ? ": the other sources matter more" : ": not shown to be more") + alone + ".";
  out += fmt::format(": shown from step {:.0f} on", motif.shown_from) + alone;
  const std::vector<std::int64_t>& steps = study.findings().step;
  if (steps.size() > 1)
    out += fmt::format("; onset by cause: {}, by mass: {}", onset_text(motif.onset, steps),
                       onset_text(motif.mass_onset, steps));
  return out + ".";
}

/// Slices outside the paper's motifs that exceed their controls, the strongest first.
std::string other_slices(const Study& study) {
  std::vector<const Motif*> others;
  for (const Motif& motif : study.findings().motifs) {
    if (!motif.of_paper) others.push_back(&motif);
  }
  const std::string where = in_every_run(study);
  if (others.empty()) return "No slice outside the three is shown to exceed its control" + where + ".";
  std::sort(others.begin(), others.end(),
            [](const Motif* a, const Motif* b) { return a->excess.back().value > b->excess.back().value; });
  std::vector<std::string> names;
  for (const Motif* motif : others) {
    names.push_back(
        fmt::format("{} ({})", slices_text(motif->slices), number_text("{:+.3f}", motif->excess.back().value)));
  }
  return fmt::format("Not only these: {} more slice{} shown to exceed {} control{}{} (excess, nats per token): {}.",
                     names.size(), names.size() > 1 ? "s are" : " is", names.size() > 1 ? "their" : "its",
                     names.size() > 1 ? "s" : "", where, list_text(names));
}

Claim motif_claim(const Study& study) {
  Claim out{
      "Training from scratch gives three localised motifs: the embedding through early MLPs, the current state "
      "through early attention and MLPs, older history through late attention.",
      "Not measured"};
  std::size_t named = 0, present = 0, controlled = 0;
  for (const Motif& motif : study.findings().motifs) {
    if (!motif.of_paper) continue;
    ++named;
    present += shown_above_control(motif);
    controlled += !std::isnan(motif.excess.back().value);
    out.evidence.push_back(motif_sentence(study, motif));
  }
  if (named == 0) {
    out.evidence.push_back("The probes hold no ablation of the 18 slices.");
    return out;
  }
  if (controlled == 0) {
    out.verdict = "Not decided: effects were measured without controls";
    return out;
  }
  out.tone = present == named ? "yes" : present > 0 ? "part" : "no";
  out.verdict =
      fmt::format("{} of {} motifs shown above their controls", present == 0 ? "None" : std::to_string(present), named);
  out.evidence.push_back(other_slices(study));
  out.evidence.push_back(
      "The motifs of the paper are tested one-sided at 5\u00a0% each, other slices two-sided after Holm\u2019s "
      "adjustment.");
  return out;
}

// ---- 3: mass and effect dissociate ----

/// A slice with its free mass and its effect at the last step, means over the runs.
std::string slice_with_numbers(const Study& study, int slice) {
  const auto at = static_cast<std::size_t>(slice);
  std::vector<double> effect;
  for (const StudyRun& run : runs_of(study))
    effect.push_back(run.record.rows.back().ablations.front().sets[at].delta_nll.value);
  return fmt::format("{} (free mass {}, effect {})", slices_text({slice}),
                     number_text("{:.2f}", study.findings().dissociation.back().free_mass[at]),
                     number_text("{:+.3f}", over_runs(effect).mean));
}

std::string rank_sentence(const Study& study, const Estimate& rank) {
  const char* meaning = rank.ci.lower > 0   ? "heavier slices tend to matter more"
                        : rank.ci.upper < 0 ? "heavier slices tend to matter less"
                                            : "whether heavier slices matter more is not shown";
  return fmt::format("Rank correlation of free mass and effect ({}) over the slices: {}; {}.", ablation_name(study),
                     estimate_text(rank, "{:+.2f}"), meaning);
}

std::string p_text(double p) {
  return p < 0.001 ? "p < 0.001" : number_text("p = {:.2g}", p);
}

std::string largest_sentence(const Study& study, const Dissociation& last, std::size_t differ) {
  if (last.largest_mass == last.largest_effect)
    return fmt::format("The heaviest slice is also the strongest: {}; so in {} of the resamples.",
                       slice_with_numbers(study, last.largest_mass), percent_text(last.p_same));
  const std::string test = std::isnan(last.p_largest)
                               ? "Whether any slice is stronger than the heaviest was not tested"
                               : p_text(last.p_largest) + " that none is stronger than the heaviest";
  return fmt::format("Heaviest: {}. Strongest: {}. {}{}.", slice_with_numbers(study, last.largest_mass),
                     slice_with_numbers(study, last.largest_effect), test,
                     of_runs(study, differ, "the heaviest is shown not to be the strongest"));
}

std::string idle_sentence(const Study& study, const Dissociation& last, std::size_t with_idle) {
  const std::string where = in_every_run(study);
  const std::string idle =
      fmt::format("a free mass of {:g} or more, and an effect shown to lie within \u00b1{:g} nats per token{}",
                  appreciable_mass, study.runs.front().record.identity.settings.margin, where);
  if (last.idle.empty()) return "No slice has " + idle + of_runs(study, with_idle, "there is such a slice") + ".";
  std::vector<std::string> names;
  for (int slice : last.idle) names.push_back(slice_with_numbers(study, slice));
  return "Idle, which means " + idle + ": " + list_text(names) + ".";
}

/// `differ` runs show that their heaviest slice is not the strongest, `with_idle` have an idle slice. `last.idle` are
/// the slices that are idle in every run.
void judge(Claim& out, const Study& study, const Dissociation& last, std::size_t differ, std::size_t with_idle) {
  const bool apart = differ == study.pooled_runs(), idle = !last.idle.empty();
  const bool together = last.largest_mass == last.largest_effect && last.p_same > interval_level;
  const std::string where = in_every_run(study);
  if (apart && idle) {
    out.tone = "yes";
    out.verdict = "Dissociated in both senses" + where;
  } else if (apart) {
    out.tone = "part";
    out.verdict = fmt::format("The heaviest slice is not the strongest{0}; no slice is shown to be idle{0}", where);
  } else if (idle) {
    out.tone = "part";
    out.verdict = fmt::format("Some slice is shown to be idle{}; the heaviest slice may be the strongest", where);
  } else if (differ > 0 || with_idle > 0) {
    out.verdict = "The runs differ in what they show";
  } else if (together) {
    out.tone = "no";
    out.verdict = "Not dissociated: the heaviest slice is the strongest";
  } else {
    out.verdict = "Not decided";
  }
}

Claim dissociation_claim(const Study& study) {
  Claim out{
      "Routing mass and causal importance dissociate: the heaviest slice is not the strongest, and some mass has no "
      "detectable causal role.",
      "Not measured"};
  const std::vector<Dissociation>& rows = study.findings().dissociation;
  if (rows.empty() || rows.back().largest_mass < 0 || rows.back().largest_effect < 0) {
    out.evidence.push_back("The probes hold no ablation of the 18 slices that could change a read.");
    return out;
  }
  const Dissociation& last = rows.back();
  std::size_t differ = 0, with_idle = 0;
  for (const StudyRun& run : runs_of(study)) {
    differ += largest_differ(run.findings.dissociation.back());
    with_idle += !run.findings.dissociation.back().idle.empty();
  }
  out.evidence.push_back(rank_sentence(study, last.rank_correlation));
  out.evidence.push_back(largest_sentence(study, last, differ));
  out.evidence.push_back(idle_sentence(study, last, with_idle));
  judge(out, study, last, differ, with_idle);
  return out;
}

}  // namespace

std::vector<Claim> claims_of(const Study& study) {
  if (!study.probed()) return {};
  return {wrapped_claim(study), motif_claim(study), dissociation_claim(study)};
}

}  // namespace routescope::analysis
