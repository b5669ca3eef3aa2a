// Which kernels compute attention on a CUDA device.
#pragma once

namespace routescope::kernels {

enum class AttentionKernel {
  automatic,  // cuDNN's where this build has them and they take the shape, otherwise the built-in ones
  builtin,    // kernels/cuda/attention_*.cu
  cudnn,      // cuDNN's; a shape that they do not take is an error
};

/// Sets the kernels of this process, from the next call of attention on. `automatic` depends on the build and the
/// shapes alone, never on a timing, so that a resumed run takes the same path. Throws std::runtime_error for cuDNN's
/// kernels in a build without them.
void set_attention_kernel(AttentionKernel kernel);
AttentionKernel attention_kernel();

}  // namespace routescope::kernels
