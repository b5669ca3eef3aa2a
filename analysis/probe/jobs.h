// The passes of a probe: every set under every ablation, and its controls, whose draws are shared out over sequences.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "analysis/results/row.h"
#include "analysis/results/settings.h"
#include "analysis/routes/controls.h"

namespace routescope::analysis {

/// Consecutive sequences that are measured under the same draws. Draws that few sequences see cost little, and the
/// spread of draws within a group, whose sequences are the same, is the error of a draw.
struct DrawGroups {
  std::int64_t size = 1;    // sequences in a row; then comes the next group, and after the last the first again
  std::int64_t groups = 1;  // 1 to 8
  int draws = 0;            // in all: draw k is of group k % groups

  DrawGroups(const ProbeSettings& settings, std::int64_t sequences);
  std::int64_t of(std::int64_t sequence) const { return sequence / size % groups; }
  /// The most that a sequence is measured under, also where all controls there are are taken.
  std::size_t per_sequence() const;
};

/// The error that the choice of draws leaves in the mean over `sequences` of delta_nll_draw, from the spread of draws
/// within groups; its degrees of freedom.
struct DrawError {
  double error = nan, freedom = 0;
};
DrawError draw_error(std::span<const double> delta_nll_draw, const DrawGroups& groups, std::size_t sequences);

/// One pass over a batch.
struct Job {
  enum class Kind { effect, alpha_control, contribution_control };
  std::size_t ablation = 0, set = 0;
  Kind kind = Kind::effect;
  std::int64_t group = -1;  // of sequences; -1: all
  std::size_t draw = 0;     // of those of a sequence
  double weight = 1;        // in the mean over these
  std::vector<GatedRoute> routes;
  int first_read = 0;  // the number of reads where it changes none: no pass then

  bool is_of(std::int64_t group_of_sequence) const { return group < 0 || group == group_of_sequence; }
};

inline ControlEffect& control_of(SetEffect& effect, Job::Kind kind) {
  return kind == Job::Kind::alpha_control ? effect.control : effect.contribution_control;
}

/// What the controls of one set under one ablation are, beside their jobs.
struct ControlPlan {
  double coverage = nan, overlap = nan;
  bool enumerated = false;
};

struct Jobs {
  /// From the one that starts deepest to the one that starts first: what precedes a job's first read is then always
  /// intact in the pass that ran before.
  std::vector<Job> list;
  std::vector<std::vector<ControlPlan>> alpha, contribution;  // [ablation][set]
};

/// `reference` with the means that controls are matched on.
Jobs make_jobs(const model::ReadPlan& plan, std::span<const RouteSet> sets, const Reference& reference,
               const ProbeSettings& settings, const DrawGroups& groups);

}  // namespace routescope::analysis
