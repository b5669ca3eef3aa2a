// The direct effect of an intervention: what the last read sees of it when no sublayer behind responds (MATH.md,
// "Routes as edges").
#pragma once

#include <span>
#include <vector>

#include "kernels/memory.h"
#include "model/pass/intervention.h"
#include "model/pass/pass_state.h"
#include "model/pass/read_steps.h"

namespace routescope::model {

/// The tensors of forward_direct(), which allocates them when it first runs.
struct DirectScratch {
  kernels::OwnedTensor output;                        // [tokens, d] of a sublayer
  std::vector<kernels::OwnedTensor> values, inv_rms;  // of the last read's sources
  kernels::OwnedTensor normed;                        // [tokens, d]: a by-product
};

/// Pass::forward_direct(), with the intervention's logit bias in the state already.
void forward_direct(PassState& pass, DirectScratch& scratch, EditScratch& edits,
                    const RoutingIntervention& intervention, std::span<const int> reads);

}  // namespace routescope::model
