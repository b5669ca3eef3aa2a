// What findings.cpp puts together: made of the curves and the rows [run][row] that they come from.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "analysis/findings.h"
#include "analysis/resampled.h"
#include "model/reads.h"

namespace routescope {

using Rows = std::vector<const ProbeRow*>;

/// Of the family of tests, one kind a row.
inline constexpr double significance = 0.05;

Dissociation dissociation_of(const Curves& curves, std::size_t row, std::span<const Rows> runs, const ReadPlan& plan);

/// The paper's three, then what else is found.
std::vector<Motif> motifs_of(const Curves& curves, std::span<const std::int64_t> steps, std::span<const Rows> runs,
                             const ReadPlan& plan, double recency_bias);

}  // namespace routescope
