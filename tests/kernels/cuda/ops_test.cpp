// The CUDA backend against the double-precision reference: on the emulated device in test_simt, on a real one in
// test_cuda.
#include <gtest/gtest.h>

#include <cstring>

#include "tests/kernels/near_reference.h"

namespace routescope::testing {
namespace {

class CudaOps : public ::testing::TestWithParam<OpCase> {};

TEST_P(CudaOps, FloatIsNearReference) {
  expect_near_reference(GetParam(), kCudaFloat);
}

TEST_P(CudaOps, Bf16IsNearReference) {
  expect_near_reference(GetParam(), kCudaBf16);
}

TEST_P(CudaOps, SameBitsEveryTime) {
  for (const Types& types : {kCudaFloat, kCudaBf16}) {
    const Tensors first = GetParam().run(types, types), again = GetParam().run(types, types);
    for (const Argument& argument : GetParam().arguments()) {
      const OwnedTensor a = on_host(first[argument.name]), b = on_host(again[argument.name]);
      EXPECT_EQ(std::memcmp(a.tensor.data, b.tensor.data, a.tensor.bytes()), 0)
          << argument.name << " differs between two runs, seed " << kSeed;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cuda, CudaOps, ::testing::ValuesIn(all_cases()),
                         [](const auto& test) { return test.param.name(); });

}  // namespace
}  // namespace routescope::testing
