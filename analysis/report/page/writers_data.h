// Masses and effects by writing sublayer, as JSON for the page.
#pragma once

#include <nlohmann/json.hpp>

#include "analysis/record/study_file.h"

namespace routescope::analysis {

/// Of every run and baseline that has writers: its name and residual mode, and of some rows, evenly chosen, as
/// many as a share of `most_numbers` holds; if it holds none, the last without the masses of single reads.
nlohmann::json writers_data(const Study& study, std::size_t most_numbers);

}  // namespace routescope::analysis
