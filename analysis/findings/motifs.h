// The motifs of the paper and further motifs of a record, over training.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "analysis/findings/learned.h"
#include "analysis/findings/resampled.h"
#include "analysis/statistics/statistics.h"
#include "model/pass/reads.h"

namespace routescope::analysis {

/// One-sided p values at one row, each of a hypothesis that has to fall before a motif counts as shown. "More" is by
/// more than the row's margin. NaN: the probes do not say.
struct MotifTests {
  double excess = nan;               // not more than controls of the same alpha
  double contribution_excess = nan;  // not more than controls of the same contribution
  double change = nan;               // the excess over either kind is not more than at step 0
  /// The effect of some slice of the motif is not more than that of another slice of the same sublayer kind and depth:
  /// the paper says that the motif is localised. Slices of its other motifs are left out.
  double localised = nan;
  double learned = nan;  // Learned::p

  /// The largest: all of them have to fall (intersection-union test). NaN if one is NaN.
  double largest() const;
};

/// The slices of one motif, and its strength over steps. Effects are those of the record's first ablation. Slices that
/// it could not test are left out; a motif without a tested slice is NaN.
struct Motif {
  std::string name;  // "embedding_early_mlp", ...; or a slice's name
  std::vector<int> slices;
  bool of_paper = false;          // the paper names it; else a slice that is shown to be one at the last row
  std::vector<Estimate> effect;   // [row] nats a token, sum over the slices
  std::vector<Estimate> control;  // [row] NaN without controls
  std::vector<Estimate> excess;   // [row] effect - control, paired over sequences
  std::vector<Estimate> contribution_excess;  // [row] the same with controls of the same contribution
  std::vector<Estimate> change;               // [row] excess minus that at step 0; NaN without a row of step 0
  std::vector<Estimate> mass;                 // [row] mean over the slices
  std::vector<Estimate> contribution;         // [row] likewise
  double uniform_mass = nan;                  // mass at the start of training: queries are zero, and only recency_bias
                                              // distinguishes sources
  std::vector<MotifTests> tests;              // [row]; `localised` of the paper's motifs only
  /// [row] MotifTests::largest() after Holm's adjustment: over the paper's motifs, or over the slices outside them. NaN
  /// with until_decided, because the tests need a number of sequences that is fixed beforehand.
  std::vector<double> p;
  /// Training step from which on, to the last row, p is significant (onset.h). NaN: never. More documents show an
  /// effect earlier: the step says by when the motif is there, not when it came.
  double shown_from = nan;
  /// Step at which the motif came: the half rise (Onset in onset.h) of the excess, and of the mass above uniform_mass.
  /// It does not depend on the number of sequences. The excess also shrinks as the control comes to overlap the set:
  /// look at ControlEffect::overlap beside it. NaN if the motif, or for the mass onset a mass above uniform_mass
  /// (one-sided, 5 %), is not shown at the last row. An end of an interval is infinite if resamples have no onset.
  Estimate onset, mass_onset;
  Estimate lead;  // ln((onset + 1) / (mass_onset + 1)): below zero the cause comes first
};

/// What findings of a record's 18 slices are made of.
struct Basis {
  const Curves& curves;
  std::span<const std::int64_t> steps;
  std::span<const Rows> runs;  // [run][row] the rows that the curves are made of
  const model::ReadPlan& plan;
  std::size_t sequences;
  std::span<const std::int64_t> documents;  // [sequence] or empty
  std::span<const Learned> learned;         // [row]
};

/// The paper's three motifs, then further ones.
std::vector<Motif> motifs_of(const Basis& basis, double recency_bias);

}  // namespace routescope::analysis
