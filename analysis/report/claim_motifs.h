// The second claim: three motifs carry the routing.
#pragma once

#include "analysis/report/claim_text.h"

namespace routescope::analysis {

/// Of a study that was probed.
Claim motif_claim(const Study& study);

}  // namespace routescope::analysis
