// The sublayers, forward and backward: attention, the MLP, and the head with the loss. Attention and MLP take x, the
// normalised input that a read made, to y, and the gradient of y (BackwardScratch::dy) to that of x
// (BackwardScratch::dx).
#pragma once

#include "model/pass/pass_state.h"

namespace routescope::model {

/// y = o(attention(rope(norm(qkv(x)))))
void forward_attention(PassState& pass, std::int64_t layer, kernels::Tensor y, kernels::Tensor x);
/// dy -> dx; the gradients of the sublayer's weights +=.
void backward_attention(PassState& pass, std::int64_t layer, kernels::Tensor x, const Weights& gradients);

/// y = down(silu(gate(x)) * up(x))
void forward_mlp(PassState& pass, std::int64_t layer, kernels::Tensor y, kernels::Tensor x);
/// dy -> dx; the gradients of the sublayer's weights +=.
void backward_mlp(PassState& pass, std::int64_t layer, kernels::Tensor x, const Weights& gradients);

/// Either of them, as read r feeds it; nothing for the last read, which feeds the head.
void forward_sublayer(PassState& pass, int r, kernels::Tensor y, kernels::Tensor x);

// The head makes logits from x of the last read. It takes a chunk of tokens at a time (Activations::head_rows), because
// the logits of all tokens may not fit the memory.

/// Logits of tokens [begin, end) into out [end - begin, vocab], of any type and on any device.
void head_logits(PassState& pass, std::int64_t begin, std::int64_t end, kernels::Tensor out);

/// act.nll of act.targets.
void forward_loss(PassState& pass);

/// act.nll of act.targets, dx = the gradient of scale * (summed nll) with respect to the final norm's output, and the
/// head's gradient +=.
void backward_head(PassState& pass, double scale, const Weights& gradients);

}  // namespace routescope::model
