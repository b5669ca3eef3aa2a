// Attention of the CUDA backend: which kernels compute it. The choice depends on the build, the setting of
// attention_kernel.h, types and shapes only. In order:
//   cuDNN's (attention_cudnn.cpp), where they are built, wanted, and take the shape;
//   on tensor cores (attention_mma.cu, attention_mma_backward.cu) for bf16 and head_dim 64 or 128;
//   without them (attention_plain.cu, attention_plain_backward.cu) for f32 and every other even head_dim up to 256.
#include <stdexcept>
#include <string>

#include "kernels/attention_kernel.h"
#include "kernels/backends.h"
#include "kernels/cuda/attention/attention_builtin.h"
#ifdef ROUTESCOPE_CUDNN
#include "kernels/cuda/attention/attention_cudnn.h"
#endif
#include "kernels/cuda/parts/vec.h"

namespace routescope::kernels::cuda {

namespace {

#ifdef ROUTESCOPE_CUDNN
/// Throws if cuDNN was asked for by name and does not take these tensors.
bool use_cudnn(const Tensor& qkv, const AttentionShape& shape) {
  const AttentionKernel wanted = attention_kernel();
  if (wanted == AttentionKernel::builtin) return false;
  const std::string refusal = attention_cudnn_refuses(qkv, shape);
  if (wanted == AttentionKernel::cudnn && !refusal.empty())
    throw std::invalid_argument("attention: cuDNN does not compute this (" + refusal +
                                "): expected kernels.attention to be auto or builtin");
  return refusal.empty();
}
#endif

void require_plain(const AttentionShape& shape) {
  if (shape.head_dim > kPlainHeadDim)
    throw std::invalid_argument("attention: head_dim " + std::to_string(shape.head_dim) + ", expected at most " +
                                std::to_string(kPlainHeadDim) + " on CUDA");
}

}  // namespace

void attention_forward(Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape, const Stream& stream) {
  require_one_type("attention_forward", qkv, out);
  if (shape.tokens() == 0) return;
#ifdef ROUTESCOPE_CUDNN
  if (use_cudnn(qkv, shape)) return attention_cudnn_forward(out, lse, qkv, shape, stream);
#endif
  if (attention_mma_takes(qkv, out, shape)) return attention_mma_forward(out, lse, qkv, shape, stream);
  require_plain(shape);
  attention_plain_forward(out, lse, qkv, shape, stream);
}

void attention_backward(Tensor dqkv, Tensor dout, Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape,
                        const Stream& stream) {
  require_one_type("attention_backward", qkv, dqkv, dout, out);
  if (shape.tokens() == 0) return;
#ifdef ROUTESCOPE_CUDNN
  if (use_cudnn(qkv, shape)) return attention_cudnn_backward(dqkv, dout, out, lse, qkv, shape, stream);
#endif
  require_plain(shape);
  float* delta = Scratch(stream).take<float>(static_cast<std::size_t>(shape.tokens() * shape.heads));
  attention_delta(delta, dout, out, shape, stream);
  if (attention_mma_takes(qkv, dout, shape) && attention_mma_takes(dqkv, dout, shape))
    attention_mma_backward(dqkv, dout, lse, delta, qkv, shape, stream);
  else
    attention_plain_backward(dqkv, dout, lse, delta, qkv, shape, stream);
}

}  // namespace routescope::kernels::cuda
