#include "kernels/attention_kernel.h"

#include <atomic>
#include <stdexcept>

namespace routescope::kernels {

namespace {
std::atomic<AttentionKernel> chosen{AttentionKernel::automatic};
}

void set_attention_kernel(AttentionKernel kernel) {
#ifndef ROUTESCOPE_CUDNN
  if (kernel == AttentionKernel::cudnn)
    throw std::runtime_error("this build has no cuDNN attention: expected kernels.attention to be auto or builtin");
#endif
  chosen = kernel;
}

AttentionKernel attention_kernel() {
  return chosen;
}

}  // namespace routescope::kernels
