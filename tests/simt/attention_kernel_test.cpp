// The choice of attention kernels where this build has no cuDNN, as the emulated device never has.
#include "kernels/attention_kernel.h"

#include <gtest/gtest.h>

#include <stdexcept>

namespace routescope::kernels {
namespace {

TEST(AttentionKernel, CudnnThatIsNotBuiltIsRefused) {
  ASSERT_EQ(attention_kernel(), AttentionKernel::automatic);
  EXPECT_THROW(set_attention_kernel(AttentionKernel::cudnn), std::runtime_error);
  EXPECT_EQ(attention_kernel(), AttentionKernel::automatic);
  set_attention_kernel(AttentionKernel::builtin);
  EXPECT_EQ(attention_kernel(), AttentionKernel::builtin);
  set_attention_kernel(AttentionKernel::automatic);
}

}  // namespace
}  // namespace routescope::kernels
