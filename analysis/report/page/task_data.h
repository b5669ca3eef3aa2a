// What the probes of a run's tasks found, as JSON for the page.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "analysis/record/record.h"

namespace routescope::analysis {

/// Of each task: how its answers fared at every step (at most `most_rows`, evenly chosen), and what the sets with the
/// largest effects do at the last one, by ablation.
nlohmann::json tasks_data(const std::vector<AnalysisRecord>& tasks, std::size_t most_rows);

}  // namespace routescope::analysis
