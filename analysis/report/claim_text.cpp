#include "analysis/report/claim_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "analysis/findings/claims.h"
#include "analysis/report/claim_mass.h"
#include "analysis/report/claim_motifs.h"
#include "analysis/report/claim_parts.h"
#include "analysis/report/wording.h"

namespace routescope::analysis {
namespace {

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
  std::size_t hold = 0, wrapped = 0;
  for (const StudyBaseline& baseline : study.baselines) {
    if (baseline.record.identity.sets.empty()) continue;  // a standard model, of which only writers were measured
    ++wrapped;
    hold += holds_closed_form(baseline.record.rows.back());
    add_baseline(out, baseline);
  }
  if (wrapped > 0) {
    out.tone = hold == wrapped ? "yes" : hold > 0 ? "part" : "no";
    out.verdict = hold == wrapped ? "Holds for the wrapped baseline" + std::string(wrapped > 1 ? "s" : "")
                                  : fmt::format("Holds for {} of {} wrapped baselines", hold, wrapped);
  }
  if (!study.findings().content.empty()) out.evidence.push_back(trained_contrast(study));
  return out;
}

}  // namespace

std::vector<Claim> claims_of(const Study& study) {
  if (!study.probed() || study.runs.front().record.identity.sets.empty()) return {};
  return {wrapped_claim(study), motif_claim(study), dissociation_claim(study)};
}

}  // namespace routescope::analysis
