// Coalitions as text for a terminal, and as JSON (data/formats/coalitions.md).
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "analysis/coalitions/measure_coalitions.h"

namespace routescope::analysis {

/// Lines of at most 120 characters. Of what the last lines say of slices nothing is said that is not shown.
std::string coalition_text(const CoalitionRow& row, const CoalitionSettings& settings, const ProbeTokens& tokens,
                           std::int64_t step);
/// What is done, what is measured, and what intervals are: attributes of a file.
std::vector<std::pair<std::string, std::string>> coalition_estimand();
/// One object, indented. Numbers that are not known are null.
std::string coalition_json(const CoalitionRow& row, const CoalitionSettings& settings, const ProbeTokens& tokens,
                           std::int64_t step, const std::string& model_sha256);

}  // namespace routescope::analysis
