// From the effects on each sequence to what may be said of them.
#pragma once

#include <cstdint>
#include <span>

#include "analysis/results/row.h"
#include "analysis/results/settings.h"

namespace routescope::analysis {

/// What the confidence sequence of a set's effects so far, one of `tested` sets, says at the level 1 - 0.05 / tested:
/// absent if it lies within (-margin, margin), also where it excludes zero; effect if it excludes zero.
Decision decide(std::span<const double> delta_nll, std::size_t tested, double margin);

/// The statistics of every set from its coverage and its values by sequence: all members but kl, top1_agreement,
/// delta_nll_class and the control's overlap. `step` tells the resampling of one row from that of another.
void summarize(AblationEffects& effects, const ProbeSettings& settings, std::int64_t step);

}  // namespace routescope::analysis
