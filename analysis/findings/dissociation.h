// Does the mass of a slice tell its effect?
#pragma once

#include <span>
#include <vector>

#include "analysis/findings/resampled.h"
#include "analysis/statistics/statistics.h"
#include "model/pass/reads.h"

namespace routescope::analysis {

/// Free mass against effect over those of the 18 slices that were tested, at one row. The free mass of a slice is its
/// mean weight over the reads that the ablation can change. In the other reads the weight is 0 (the read has none of
/// the slice's sources) or 1 (it has no other source), whatever the model does. Hence free mass = (mass * reads - reads
/// with no other source) / changed reads.
struct Dissociation {
  std::vector<double> free_mass;  // [slice]; mean over runs; NaN: not tested
  Estimate rank_correlation;      // Spearman, bootstrap over sequences
  int largest_mass = -1;          // slice with the largest free mass; -1: none
  int largest_effect = -1;        // slice with the largest delta_nll
  double p_same = nan;            // share of resamples in which the two are the same slice (not a p value)
  /// p value of the hypothesis that no slice has a larger effect than the slice of the largest free mass: t tests
  /// against each of the others, paired over sequences; the least p value times their number. NaN with until_decided,
  /// because the test needs a number of sequences that is fixed beforehand.
  double p_largest = nan;
  std::vector<int>
      idle;  // slices with a free mass of `appreciable_mass` or more whose effect is shown to be within the margin
};
inline constexpr double appreciable_mass = 0.1;

/// Of one row; runs [run][row] are the rows that the curves are made of.
Dissociation dissociation_of(const Curves& curves, std::size_t row, std::span<const Rows> runs,
                             const model::ReadPlan& plan);

}  // namespace routescope::analysis
