// The passes of a probe: every set under every ablation, and its controls.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "analysis/results/probe_tokens.h"
#include "analysis/results/row.h"
#include "analysis/results/settings.h"
#include "analysis/routes/controls.h"
#include "analysis/routes/prepare.h"

namespace routescope::analysis {

/// A set has at least so many draws of a control, unless all controls that there are are taken.
inline constexpr std::int64_t least_draws = 16;

/// How the draws of a control are shared out: every document has some of its own, so that their spread is a part of the
/// spread of documents, and no further error.
struct DocumentDraws {
  std::vector<std::size_t> document;  // [sequence] the number of its document, by first appearance
  std::size_t documents = 0;
  std::size_t per_document = 0;  // 0: no controls

  DocumentDraws(const ProbeSettings& settings, const ProbeTokens& tokens);
};

/// One pass over a batch.
struct Job {
  /// `frozen` and `direct`: the set's effect where later routing, or everything but the head, does not respond.
  enum class Kind { effect, alpha_control, contribution_control, frozen, direct };
  std::size_t ablation = 0, set = 0;
  Kind kind = Kind::effect;
  double weight = 1;                            // of a control in the mean over those of a sequence
  std::vector<std::vector<GatedRoute>> routes;  // the same for all sequences, or [document]
  int first_read = 0;                           // the number of reads where it changes none: no pass then
  int computed_reads = 0;                       // of one token, with what precedes the first read shared

  const std::vector<GatedRoute>& routes_of(std::size_t document) const {
    return routes.size() == 1 ? routes.front() : routes[document];
  }
};

inline bool is_control(Job::Kind kind) {
  return kind == Job::Kind::alpha_control || kind == Job::Kind::contribution_control;
}

inline ControlEffect& control_of(SetEffect& effect, Job::Kind kind) {
  return kind == Job::Kind::alpha_control ? effect.control : effect.contribution_control;
}

/// What the controls of one set under one ablation are, beside their jobs.
struct ControlPlan {
  double coverage = nan, overlap = nan;
  bool enumerated = false;
};

struct Jobs {
  /// Direct effects first, which need all of an intact pass; then from the one that starts deepest to the one that
  /// starts first: what precedes a job's first read is then always intact in the pass that ran before.
  std::vector<Job> list;
  std::vector<std::vector<ControlPlan>> alpha, contribution;  // [ablation][set]
};

/// `reference` with the means that controls are matched on.
Jobs make_jobs(const model::ReadPlan& plan, std::span<const RouteSet> sets, const Reference& reference,
               const ProbeSettings& settings, const DocumentDraws& draws);

}  // namespace routescope::analysis
