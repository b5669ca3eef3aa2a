// The schema of analysis.h5, continued: the effects of one ablation on every set, those of its controls,
// and those of writers.
#pragma once

#include "analysis/record/record_fields.h"
#include "analysis/routes/controls.h"

namespace routescope::analysis {

inline constexpr const char* delta_metric =
    "nll of the ablated minus nll of the intact model, mean over the predicted tokens of a sequence, then over "
    "sequences";

/// /ABLATION
RecordGroup effects_group(const ProbeIdentity& identity, Ablation ablation);
/// /frozen/ABLATION or /direct/ABLATION
RecordGroup path_group(const ProbeIdentity& identity, Ablation ablation, bool frozen);
/// /control/ABLATION or /contribution_control/ABLATION
RecordGroup control_group(const ProbeIdentity& identity, Ablation ablation, Matched matched);
/// /writers
RecordGroup writers_group(const ProbeIdentity& identity);

}  // namespace routescope::analysis
