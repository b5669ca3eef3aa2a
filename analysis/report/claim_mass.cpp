#include "analysis/report/claim_mass.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "analysis/findings/claims.h"
#include "analysis/report/claim_parts.h"
#include "analysis/report/wording.h"

namespace routescope::analysis {
namespace {

const char* name_of(MassKind kind) {
  return kind == MassKind::alpha ? "weight" : "contribution";
}

/// "+0.35 [-0.10, +0.70], p = 0.02".
std::string concordance_text(const Concordance& one) {
  return estimate_text({one.tau, one.ci}, "{:+.2f}") + ", " + p_text(one.p);
}

std::string rank_sentence(const Study& study, MassKind kind) {
  const MassAgainstEffect& last = study.findings().dissociation.back().of(kind);
  const bool judged = no_verdict(study).empty();
  const bool more = judged && last.over.ci.lower > 0, less = judged && last.over.ci.upper < 0;
  std::string out = fmt::format(
      "By {}: Kendall\u2019s tau of free mass and effect ({}) is {} over all slices{}; {} within "
      "one sublayer and depth, where families share one unit of mass",
      name_of(kind), ablation_name(study), concordance_text(last.over),
      more   ? ": heavier slices tend to matter more"
      : less ? ": heavier slices tend to matter less"
             : "",
      concordance_text(last.within));
  if (!std::isnan(last.within_reads.tau))
    out += fmt::format("; {} over the {} pairs of masked routes of one read", concordance_text(last.within_reads),
                       last.within_reads.pairs);
  return out + ".";
}

/// A family; or a slice with its free mass and effect, means over runs.
std::string item_text(const Study& study, const ContestName& name, int item) {
  if (name.families) return to_string(static_cast<model::Family>(item));
  const auto at = static_cast<std::size_t>(item);
  std::vector<double> effect;
  for (const StudyRun& run : runs_of(study))
    effect.push_back(run.record.rows.back().ablations.front().sets[at].delta_nll.value);
  return fmt::format("{} (free {} {}, effect {})", slices_text({item}),
                     name.mass == MassKind::alpha ? "mass" : "contribution",
                     number_text("{:.2f}", study.findings().dissociation.back().of(name.mass).free_mass[at]),
                     number_text("{:+.3f}", over_runs(effect).mean));
}

std::string contest_sentence(const Study& study, MassKind kind) {
  const Dissociation& last = study.findings().dissociation.back();
  std::vector<std::string> parts;
  for (std::size_t c = 0; c < num_contests; ++c) {
    const ContestName name = contest_name(c);
    const Contest& contest = last.contests[c];
    if (name.mass != kind || contest.heaviest < 0) continue;
    const std::string where =
        fmt::format("{} of {}", name.families ? "families" : "slices", name.sublayer == 0 ? "attention" : "MLP");
    if (contest.heaviest == contest.strongest)
      parts.push_back(fmt::format("{}: {} is both, as observed", where, item_text(study, name, contest.heaviest)));
    else
      parts.push_back(fmt::format("{}: {} and {}, {} ({})", where, item_text(study, name, contest.heaviest),
                                  item_text(study, name, contest.strongest),
                                  contest.differ() ? "shown to differ" : "not shown to differ",
                                  p_text(contest.p_adjusted)));
  }
  return fmt::format("The heaviest by {} and the strongest, in {}.", name_of(kind), list_text(parts));
}

std::string idle_sentence(const Study& study, MassKind kind) {
  const MassAgainstEffect& last = study.findings().dissociation.back().of(kind);
  const std::string where = study.pooled_runs() > 1 ? ", in every run" : "";
  const std::string idle = fmt::format(
      "a free {} of {:g} or more and an effect shown to lie within the margin in more than "
      "{:.0f}\u00a0% of documents{}",
      name_of(kind), appreciable_mass, 100 * idle_share, where);
  if (last.idle.empty()) return "No slice is shown to be idle by " + std::string(name_of(kind)) + ": " + idle + ".";
  std::vector<std::string> names;
  for (int slice : last.idle) names.push_back(slices_text({slice}));
  return fmt::format("Idle by {}, which means {}: {}. A rarer kind of text may still need them.", name_of(kind), idle,
                     list_text(names));
}

std::string at_initial_step(const Study& study) {
  const std::ptrdiff_t initial = initial_row(study.findings().step);
  if (initial < 0) return "";
  const Dissociation& row = study.findings().dissociation[static_cast<std::size_t>(initial)];
  std::size_t differ = 0;
  for (const Contest& contest : row.contests)
    differ += contest.heaviest != contest.strongest && contest.p_alone < significance;
  return fmt::format(
      "At step 0, where nothing was learned, {} of {} comparisons differ by however little: what is shown to differ "
      "has to "
      "differ more than there.",
      differ, num_contests);
}

void judge(Claim& out, const Dissociation& last) {
  const std::size_t differ = contests_that_differ(last, MassKind::alpha),
                    tested = contests_tested(last, MassKind::alpha),
                    by_contribution = contests_that_differ(last, MassKind::contribution),
                    tested_by_contribution = contests_tested(last, MassKind::contribution);
  const bool idle = !last.of(MassKind::alpha).idle.empty();
  out.verdict = fmt::format(
      "The heaviest is shown not to be the strongest in {} of {} comparisons by weight, {} of {} by "
      "contribution; {}",
      differ, tested, by_contribution, tested_by_contribution,
      idle ? "some slice is shown to be idle" : "no slice is shown to be idle");
  if (differ == tested && tested > 0 && idle)
    out.tone = "yes";
  else if (differ > 0 || idle)
    out.tone = "part";
}

}  // namespace

Claim dissociation_claim(const Study& study) {
  Claim out{
      "Routing mass and causal importance dissociate: the heaviest slice is not the strongest, and some mass has no "
      "detectable causal role.",
      "Not measured"};
  const std::vector<Dissociation>& rows = study.findings().dissociation;
  if (rows.empty() || rows.back().largest_mass < 0 || rows.back().largest_effect < 0) {
    out.evidence.emplace_back("The probes hold no ablation of the 18 slices that could change a read.");
    return out;
  }
  add_basis(out, study);
  const std::string reason = no_verdict(study);
  out.verdict = reason;
  for (MassKind kind : mass_kinds) {
    if (std::isnan(rows.back().of(kind).rank_correlation)) continue;
    out.evidence.push_back(rank_sentence(study, kind));
    if (!reason.empty()) continue;
    out.evidence.push_back(contest_sentence(study, kind));
    out.evidence.push_back(idle_sentence(study, kind));
  }
  if (!reason.empty()) return out;
  judge(out, rows.back());
  out.evidence.push_back(at_initial_step(study));
  out.evidence.push_back(fmt::format(
      "They differ if something has an effect that is larger by more than the margin, and more so than at step 0, than "
      "that of the heaviest, and of everything that is not shown to be lighter than it by {:g} (5\u00a0% over the "
      "comparisons by Holm\u2019s method). The mass of a family is free mass over its reads, its effect the sum over "
      "its "
      "slices, each ablated alone.",
      near_tie));
  return out;
}

}  // namespace routescope::analysis
