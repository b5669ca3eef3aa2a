// Coalitions as text for a terminal, and as JSON (data/formats/coalitions.md).
#pragma once

#include <string>

#include "analysis/coalitions/measure_coalitions.h"

namespace routescope::analysis {

/// Lines of at most 120 characters. Of what the last lines say of slices nothing is said that is not shown.
std::string coalition_text(const CoalitionRow& row, const CoalitionSettings& settings, const ProbeTokens& tokens,
                           std::int64_t step);
/// One object, indented. Numbers that are not known are null.
std::string coalition_json(const CoalitionRow& row, const CoalitionSettings& settings, const ProbeTokens& tokens,
                           std::int64_t step, const std::string& model_sha256);

}  // namespace routescope::analysis
