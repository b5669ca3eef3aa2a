// The attention kernels of this backend, among which attention.cu chooses. Arguments as in op_declarations.inc.
#pragma once

#include "kernels/op_types.h"

namespace routescope::kernels::cuda {

/// Whether the tensor-core kernels take these tensors: bf16 at 16-byte addresses, head_dim 64 or 128.
bool attention_mma_takes(const Tensor& qkv, const Tensor& out, const AttentionShape& shape);
void attention_mma_forward(Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape, const Stream& stream);
/// delta [batch, heads, seq_len] f32 from attention_delta.
void attention_mma_backward(Tensor dqkv, Tensor dout, Tensor lse, const float* delta, Tensor qkv,
                            const AttentionShape& shape, const Stream& stream);

/// The same without tensor cores, for f32 or bf16 and any even head_dim up to kPlainHeadDim.
inline constexpr int kPlainHeadDim = 256;
void attention_plain_forward(Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape, const Stream& stream);
void attention_plain_backward(Tensor dqkv, Tensor dout, Tensor lse, const float* delta, Tensor qkv,
                              const AttentionShape& shape, const Stream& stream);

/// delta [batch, heads, seq_len] f32 = sum over head_dim of dout * out, both [tokens, heads*head_dim] of one type.
void attention_delta(float* delta, Tensor dout, Tensor out, const AttentionShape& shape, const Stream& stream);

}  // namespace routescope::kernels::cuda
