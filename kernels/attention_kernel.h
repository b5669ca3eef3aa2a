// Which kernels compute attention on a CUDA device.
#pragma once

namespace routescope::kernels {

enum class AttentionKernel {
  automatic,  // cuDNN's where this build has them and they take the shape, otherwise the built-in ones
  builtin,    // kernels/cuda/attention_*.cu
  cudnn,      // cuDNN's; a shape that they do not take is an error
};

/// Of this process, from the next call of attention on. The choice follows from the build and the shapes alone, never
/// from a timing, so that a run that is resumed takes the same path. Throws std::runtime_error if cuDNN's are asked for
/// and this build has none.
void set_attention_kernel(AttentionKernel kernel);
AttentionKernel attention_kernel();

}  // namespace routescope::kernels
