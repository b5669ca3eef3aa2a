// From the effects on each sequence to what may be said of them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "analysis/results/identity.h"
#include "analysis/results/row.h"

namespace routescope::analysis {

/// The independent values that a sequential look has: of effects on the first sequences, a value for each document that
/// is complete among them.
std::vector<double> values_so_far(std::span<const double> by_sequence, const ProbeTokens& tokens);

/// What the confidence sequence of a set's effects so far (values_so_far()), one of `tested` sets, says at the level
/// 1 - 0.05 / tested: absent if it lies within (-margin, margin), also where it excludes zero; effect if it excludes
/// zero.
Decision decide(std::span<const double> effects, std::size_t tested, double margin);

/// The statistics of every set from its coverage and its values by sequence: all members but kl, top1_agreement,
/// delta_nll_class, and the controls' coverage and overlap. Documents are the units of inference. `margin`: nats a
/// token. `step` tells the resampling of one row from that of another.
void summarize(AblationEffects& effects, const ProbeIdentity& identity, double margin, std::int64_t step);

}  // namespace routescope::analysis
