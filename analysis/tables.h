// Probe results as text for a terminal.
#pragma once

#include <string>

#include "analysis/record.h"

namespace routescope {

/// "embedding.mlp.early" for the slices in their fixed order.
std::string slice_name(std::size_t slice);

/// One step: a line for each slice with mass, effect and interval, adjusted p, KL, agreement and coverage.
std::string slice_table(const ProbeRow& row, const ProbeIdentity& identity);

/// All steps: the effects, with intervals, of the slices whose effect is the largest at any step.
std::string emergence_table(const AnalysisRecord& record);

}  // namespace routescope
