// Attention by cuDNN, in builds that have it (ROUTESCOPE_CUDNN). Arguments as in op_declarations.inc.
#pragma once

#include <cstddef>
#include <string>

#include "kernels/op_types.h"

namespace routescope::kernels::cuda {

/// Why cuDNN does not compute attention on these tensors on the current device; empty if it does. Follows from device,
/// library and shape alone, never from a timing.
std::string attention_cudnn_refuses(const Tensor& qkv, const AttentionShape& shape);
void attention_cudnn_forward(Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape, const Stream& stream);
void attention_cudnn_backward(Tensor dqkv, Tensor dout, Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape,
                              const Stream& stream);
/// Bytes of a stream's workspace that both passes take for bf16 of this shape or of fewer sequences. Also prepares the
/// graphs of the shape, so that a step can be recorded later. Without a device it is an estimate.
std::size_t attention_cudnn_workspace(const AttentionShape& shape);

}  // namespace routescope::kernels::cuda
