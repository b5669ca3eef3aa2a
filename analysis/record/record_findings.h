// The findings in analysis.h5 and study.h5 (analysis/findings/findings.h). They are computed whenever the file is
// written, and never read back.
#pragma once

#include "analysis/findings/findings.h"
#include "analysis/record/record.h"
#include "data/hdf5/group.h"

namespace routescope::analysis {

/// The groups /dissociation, /motif/NAME and /content, as far as the findings have them. `file` has their axes already.
void write_findings(data::hdf5::Group& file, const ProbeIdentity& identity, const Findings& findings);

}  // namespace routescope::analysis
