// The circuits of a study's runs, as JSON for the page.
#pragma once

#include <nlohmann/json.hpp>

#include "analysis/report/study.h"

namespace routescope::analysis {

/// `graphs` of edges, which measurements of one model share; `runs`: of each the measurements (text, then its tasks),
/// with numbers of every step and, of some steps, the circuit's edges and the curves; `common`: which edges circuits of
/// several runs share, of every group of runs that were measured alike, at the last step that all of them have.
nlohmann::json circuits_data(const StudyCircuits& circuits);

}  // namespace routescope::analysis
