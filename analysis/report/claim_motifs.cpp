#include "analysis/report/claim_motifs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "analysis/findings/claims.h"
#include "analysis/report/claim_parts.h"
#include "analysis/report/wording.h"

namespace routescope::analysis {
namespace {

/// "; in 2 of 3 runs taken alone it is shown"; nothing for a single run.
std::string alone(const Study& study, const Motif& motif) {
  if (study.pooled_runs() == 1) return {};
  const auto runs = runs_of(study);
  const auto shown = std::count_if(runs.begin(), runs.end(), [&](const StudyRun& run) {
    return std::any_of(run.findings.motifs.begin(), run.findings.motifs.end(),
                       [&](const Motif& own) { return own.name == motif.name && shown_above_control(own); });
  });
  return fmt::format("; in {} of {} runs taken alone it is shown", shown, runs.size());
}

/// Why a motif is not shown at the last row.
std::vector<std::string> missing(const Motif& motif) {
  const MotifTests& tests = motif.tests.back();
  std::vector<std::string> out;
  const auto expect = [&](double p, const char* not_shown, const char* not_measured) {
    if (std::isnan(p))
      out.emplace_back(not_measured);
    else if (!(p < significance))
      out.emplace_back(not_shown);
  };
  const auto no_control = [&](const char* held) {
    return fmt::format("no control of the same {} can differ from {}", held,
                       motif.slices.size() > 1 ? "one of its slices at least" : "it");
  };
  expect(tests.excess, "it is not shown to matter more, by the margin, than other sources of the same weight",
         no_control("weight").c_str());
  expect(tests.contribution_excess,
         "it is not shown to matter more, by the margin, than other sources of the same contribution",
         no_control("contribution").c_str());
  // Without a control there is no excess at any step.
  if (!std::isnan(tests.change) || !(std::isnan(tests.excess) || std::isnan(tests.contribution_excess)))
    expect(tests.change, "its excess over both is not shown to be larger, by the margin, than at step 0",
           "what its excess was at step 0 is not known");
  expect(tests.localised, "another slice of its sublayer and depth may matter as much, but for the margin",
         "no other slice of its sublayer and depth was tested");
  expect(tests.learned, "the model is not shown to have learned enough", "what the model learned is not known");
  if (out.empty()) out.push_back("not after the adjustment for three motifs (" + p_text(motif.p.back()) + ")");
  return out;
}

/// " (overlap 0.83; they can differ in 33 % of its reads)": how much of the set its controls are, where that is known,
/// and where some reads leave a control no choice.
std::string choice(const Study& study, const Motif& motif, ControlEffect SetEffect::*control) {
  double reads = 0, free = 0, overlap = 0, count = 0;
  for (const StudyRun& run : runs_of(study)) {
    for (int slice : motif.slices) {
      const SetEffect& set = run.record.rows.back().ablations.front().sets[static_cast<std::size_t>(slice)];
      if (!(set.coverage > 0)) continue;
      reads += set.coverage;
      free += set.coverage * (set.*control).coverage;
      overlap += (set.*control).overlap;
      ++count;
    }
  }
  std::vector<std::string> parts;
  if (!std::isnan(overlap / count)) parts.push_back(fmt::format("overlap {:.2f}", overlap / count));
  if (free < reads) parts.push_back(fmt::format("they can differ in {} of its reads", percent_text(free / reads)));
  return parts.empty() ? "" : fmt::format(" ({})", fmt::join(parts, "; "));
}

std::string motif_sentence(const Study& study, const Motif& motif) {
  const std::string title = slices_text(motif.slices);
  const Estimate& effect = motif.effect.back();
  if (std::isnan(effect.value)) return title + ": not tested, since the ablation can change no such read.";
  const Learned& learned = study.findings().learned.back();
  std::string out = fmt::format("{}: ablating it ({}) costs {} nats per token", title, ablation_name(study),
                                estimate_text(effect, "{:+.3f}"));
  if (learned.shown()) out += fmt::format(", {} of what was learned", percent_text(effect.value / learned.gain.value));
  const auto more = [&](const Estimate& estimate, const std::string& what) {
    if (!std::isnan(estimate.value)) out += fmt::format(", {} {}", estimate_text(estimate, "{:+.3f}"), what);
  };
  more(motif.excess.back(), "more than other sources of the same weight" + choice(study, motif, &SetEffect::control));
  more(motif.contribution_excess.back(),
       "more than other sources of the same contribution" + choice(study, motif, &SetEffect::contribution_control));
  more(motif.change.back(), "more in excess than at step 0");
  if (!no_verdict(study).empty()) return out + ".";
  if (!shown_above_control(motif)) return out + ". Not shown: " + list_text(missing(motif)) + alone(study, motif) + ".";
  out +=
      fmt::format(". Shown from step {:.0f} on ({}){}", motif.shown_from, p_text(motif.p.back()), alone(study, motif));
  const std::vector<std::int64_t>& steps = study.findings().step;
  if (steps.size() > 1 && !std::isnan(motif.onset.value))
    out += fmt::format("; half of its excess was there by step {}", onset_text(motif.onset, steps));
  if (steps.size() > 1 && !std::isnan(motif.mass_onset.value))
    out += fmt::format("; half of its mass above uniform by step {}", onset_text(motif.mass_onset, steps));
  return out + ".";
}

/// Slices outside the paper's motifs that are shown, the strongest first.
std::string other_slices(const Study& study) {
  std::vector<const Motif*> others;
  for (const Motif& motif : study.findings().motifs) {
    if (!motif.of_paper) others.push_back(&motif);
  }
  if (others.empty())
    return "No slice outside the three is shown to exceed both of its controls, and to do so more than at step 0.";
  std::sort(others.begin(), others.end(),
            [](const Motif* a, const Motif* b) { return a->excess.back().value > b->excess.back().value; });
  std::vector<std::string> names;
  for (const Motif* motif : others) {
    names.push_back(
        fmt::format("{} ({})", slices_text(motif->slices), number_text("{:+.3f}", motif->excess.back().value)));
  }
  return fmt::format(
      "Not only these: {} more slice{} shown to exceed both controls, and to do so more than at step 0 (excess over "
      "the "
      "same weight, nats per token): {}.",
      names.size(), names.size() > 1 ? "s are" : " is", list_text(names));
}

std::string at_initial_step(const Study& study) {
  const std::ptrdiff_t initial = initial_row(study.findings().step);
  if (initial < 0) return "";
  std::size_t shown = 0;
  for (const Motif& motif : study.findings().motifs) {
    const MotifTests& tests = motif.tests[static_cast<std::size_t>(initial)];
    shown += motif.of_paper && tests.excess < significance && tests.contribution_excess < significance &&
             tests.localised < significance;
  }
  return fmt::format(
      "At step 0, where nothing was learned, {} of 3 exceed both controls and the other slices of their place, by "
      "however "
      "little: what is shown has to exceed that too.",
      shown);
}

}  // namespace

Claim motif_claim(const Study& study) {
  Claim out{
      "Three motifs carry the routing: the embedding into early MLP reads, the current block into early reads, the "
      "history of blocks into late attention.",
      "Not measured"};
  std::size_t of_paper = 0, named = 0, present = 0, controlled = 0;
  std::vector<std::string> sentences;
  for (const Motif& motif : study.findings().motifs) {
    if (!motif.of_paper) continue;
    ++of_paper;
    sentences.push_back(motif_sentence(study, motif));
    if (std::isnan(motif.effect.back().value)) continue;
    ++named;
    present += shown_above_control(motif);
    controlled += !std::isnan(motif.excess.back().value);
  }
  if (named == 0) {
    out.evidence.emplace_back("The probes hold no ablation of the 18 slices.");
    return out;
  }
  add_basis(out, study);
  out.evidence.insert(out.evidence.end(), sentences.begin(), sentences.end());
  if (const std::string reason = no_verdict(study); !reason.empty()) {
    out.verdict = reason;
    return out;
  }
  if (controlled == 0) {
    out.verdict = "Not decided: no motif has controls that can differ from it and of which the spread is known";
    return out;
  }
  out.tone = present == of_paper ? "yes" : present > 0 ? "part" : "no";
  out.verdict = fmt::format("{} of {} motifs shown", present == 0 ? "None" : std::to_string(present), named);
  out.evidence.push_back(other_slices(study));
  out.evidence.push_back(at_initial_step(study));
  out.evidence.emplace_back(
      "A motif is shown if all of this is (one-sided, 5\u00a0% over the three by Holm\u2019s method): it exceeds "
      "controls "
      "of the same weight and of the same contribution, exceeds either kind more than at step 0, and has a larger "
      "effect "
      "than every slice of its sublayer and depth outside the three motifs, each by more than the margin.");
  return out;
}

}  // namespace routescope::analysis
