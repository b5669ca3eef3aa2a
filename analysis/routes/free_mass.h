// The free mass of a set of routes: its mass where an ablation can change it.
#pragma once

#include "analysis/routes/ablation.h"

namespace routescope::analysis {

/// The mean mass over the reads that an ablation can change, from the mass over all reads of the set. In the other
/// reads the mass is 0 (the read has none of the set's sources) or 1 (it has no other source), whatever the model does.
/// It is so for every mass that sums to one over the sources of a read (MATH.md, "Masses").
struct FreeMass {
  double reads = 0, certain = 0, changed = 0;  // of the set; with no other source; that can be changed

  FreeMass(const model::ReadPlan& plan, Ablation ablation, const RouteSet& set);
  /// NaN where no read can be changed.
  double of(double mass) const;
};

}  // namespace routescope::analysis
