// The motifs of the paper and further motifs of a record, over training.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "analysis/findings/resampled.h"
#include "analysis/statistics/statistics.h"
#include "model/pass/reads.h"

namespace routescope::analysis {

/// The slices of one motif, and its strength over steps. Effects are those of the record's first ablation. Slices that
/// it could not test are left out; a motif without a tested slice is NaN.
struct Motif {
  std::string name;  // "embedding_early_mlp", ...; or a slice's name
  std::vector<int> slices;
  bool of_paper = false;  // the paper names it; else it is a slice with an excess above 0 at the last row (Holm, 5 %)
  std::vector<Estimate> effect;   // [row] nats a token, sum over the slices
  std::vector<Estimate> control;  // [row] NaN without controls
  std::vector<Estimate> excess;   // [row] effect - control, paired over sequences
  std::vector<Estimate> mass;     // [row] mean over the slices
  double uniform_mass = nan;      // mass at the start of training: queries are zero, and only recency_bias
                                  // distinguishes sources
  /// Training step from which on, to the last row, the excess is shown to be above zero (shown_from() in onset.h). NaN:
  /// never, or with until_decided, as p_largest. More sequences show an effect earlier: the step says by when the motif
  /// is there, not when it came.
  double shown_from = nan;
  /// Step at which the motif came: the half rise (Onset in onset.h) of the excess, and of the mass above uniform_mass.
  /// It does not depend on the number of sequences. The excess also shrinks as the control comes to overlap the set:
  /// look at ControlEffect::overlap beside it. NaN if the last row is not shown to be above zero (one-sided, 5 %). The
  /// value is the step of a row, never between rows. An end of an interval is infinite if resamples have no onset.
  Estimate onset, mass_onset;
  Estimate lead;  // ln((onset + 1) / (mass_onset + 1)): below zero the cause comes first
};

/// The paper's three motifs, then further ones. runs [run][row] are the rows that the curves are made of.
std::vector<Motif> motifs_of(const Curves& curves, std::span<const std::int64_t> steps, std::span<const Rows> runs,
                             const model::ReadPlan& plan, double recency_bias);

}  // namespace routescope::analysis
