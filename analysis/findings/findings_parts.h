// What findings.cpp puts together: made of the curves and the rows [run][row] that they come from.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "analysis/findings/findings.h"
#include "analysis/findings/resampled.h"
#include "model/pass/reads.h"

namespace routescope::analysis {

using Rows = std::vector<const ProbeRow*>;

/// Of the family of tests, one kind a row.
inline constexpr double significance = 0.05;

Dissociation dissociation_of(const Curves& curves, std::size_t row, std::span<const Rows> runs,
                             const model::ReadPlan& plan);

/// The paper's three, then what else is found.
std::vector<Motif> motifs_of(const Curves& curves, std::span<const std::int64_t> steps, std::span<const Rows> runs,
                             const model::ReadPlan& plan, double recency_bias);

}  // namespace routescope::analysis
