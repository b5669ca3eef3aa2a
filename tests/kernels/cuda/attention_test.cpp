// The built-in attention kernels on a device whose build has cuDNN too: there ops_test holds cuDNN's against the
// reference, since they are what `automatic` takes, and this holds the built-in ones. The emulated device has no
// others.
#include <gtest/gtest.h>

#include <cstring>

#include "kernels/attention_kernel.h"
#include "tests/kernels/near_reference.h"

#ifndef ROUTESCOPE_SIMT

namespace routescope::testing {
namespace {

std::vector<OpCase> attention_cases() {
  std::vector<OpCase> cases = all_cases();
  std::erase_if(cases, [](const OpCase& op) { return op.name().rfind("attention_", 0) != 0; });
  return cases;
}

class BuiltinAttention : public ::testing::TestWithParam<OpCase> {
 protected:
  void SetUp() override { kernels::set_attention_kernel(kernels::AttentionKernel::builtin); }
  void TearDown() override { kernels::set_attention_kernel(kernels::AttentionKernel::automatic); }
};

TEST_P(BuiltinAttention, Bf16IsNearReferenceEveryTime) {
  const Tensors first = expect_near_reference(GetParam(), kCudaBf16), again = GetParam().run(kCudaBf16, kCudaBf16);
  for (const Argument& argument : GetParam().arguments()) {
    const kernels::OwnedTensor a = on_host(first[argument.name]), b = on_host(again[argument.name]);
    EXPECT_EQ(std::memcmp(a.tensor.data, b.tensor.data, a.tensor.bytes()), 0)
        << argument.name << " differs between two runs, seed " << kSeed;
  }
}

INSTANTIATE_TEST_SUITE_P(Cuda, BuiltinAttention, ::testing::ValuesIn(attention_cases()),
                         [](const auto& test) { return test.param.name(); });

}  // namespace
}  // namespace routescope::testing

#endif
