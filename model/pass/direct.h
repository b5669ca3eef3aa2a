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

/// Whether a writer's output is a part of read r's partial. Writer 0 is the embedding, writer w the sublayer that read
/// w - 1 feeds: its output enters partial w first, and is y_w = p_w - p_{w-1}, or p_w where that does not continue.
bool is_part_of(const ReadPlan& plan, int writer, int r);

/// Pass::forward_direct(), with the intervention's logit bias in the state already.
void forward_direct(PassState& pass, DirectScratch& scratch, EditScratch& edits,
                    const RoutingIntervention& intervention, std::span<const int> reads);

}  // namespace routescope::model
