// The third claim: mass and effect dissociate.
#pragma once

#include "analysis/report/claim_text.h"

namespace routescope::analysis {

/// Of a study that was probed.
Claim dissociation_claim(const Study& study);

}  // namespace routescope::analysis
