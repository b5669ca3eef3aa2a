// Everything that the page of a study shows, as JSON, thinned to what a page can hold: under 5 MB for the largest
// models, however many runs there are.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>

#include "analysis/record/study_file.h"
#include "analysis/report/routed_text.h"
#include "analysis/report/study.h"

namespace routescope::analysis {

/// `text` is a text of the first run; `circuits` and `coalitions` are those of all runs, or empty.
nlohmann::json page_data(const Study& study, const std::optional<RoutedText>& text = {},
                         const StudyCircuits& circuits = {}, const StudyCoalitions& coalitions = {});

}  // namespace routescope::analysis
