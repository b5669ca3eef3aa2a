// The sublayers of a layer, forward and backward: attention and the MLP. Both take x, the normalised input that a read
// made, to y, and the gradient of y (BackwardScratch::dy) to that of x (BackwardScratch::dx).
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

}  // namespace routescope::model
