// What slices do alone and together, as JSON for the page, and what it says of those that do nothing alone.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "analysis/report/claim_text.h"
#include "analysis/report/study.h"

namespace routescope::analysis {

/// Of each measurement of a run (text, then its tasks) the rows of at most `most_rows` steps, evenly chosen.
nlohmann::json coalitions_data(const std::vector<RunCoalitions>& coalitions, std::size_t most_rows);

/// Whether what has mass and does nothing alone is idle, from the last row of every run's text. Nothing where no run
/// has coalitions.
std::optional<Claim> company_claim(const Study& study, const StudyCoalitions& coalitions);

}  // namespace routescope::analysis
