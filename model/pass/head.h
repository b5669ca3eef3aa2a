// The head: logits and loss from the final norm's output, and their gradient. A chunk of tokens is done at a time
// (Activations::head_rows), because the logits of all tokens may not fit the memory.
#pragma once

#include "model/pass/pass_state.h"

namespace routescope::model {

/// Logits of tokens [begin, end) into out [end - begin, vocab], of any type and on any device.
void head_logits(PassState& pass, std::int64_t begin, std::int64_t end, kernels::Tensor out);

/// act.nll of act.targets.
void forward_loss(PassState& pass);

/// act.nll of act.targets, dx = the gradient of scale * (summed nll) with respect to the final norm's output, and the
/// head's gradient +=.
void backward_head(PassState& pass, double scale, const Weights& gradients);

}  // namespace routescope::model
