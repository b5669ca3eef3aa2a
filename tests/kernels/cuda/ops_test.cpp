// The CUDA backend against the double-precision reference: on the emulated device in test_simt, on a real one in
// test_cuda.
#include <gtest/gtest.h>

#include <cstring>

#include "tests/kernels/near_reference.h"

namespace routescope::testing {
namespace {

/// Near the reference, and the same bits in a second run, which in emulation has another order of blocks and threads.
void expect_near_reference_every_time(const OpCase& op, const Types& types) {
  const Tensors first = expect_near_reference(op, types), again = op.run(types, types);
  for (const Argument& argument : op.arguments()) {
    const kernels::OwnedTensor a = on_host(first[argument.name]), b = on_host(again[argument.name]);
    EXPECT_EQ(std::memcmp(a.tensor.data, b.tensor.data, a.tensor.bytes()), 0)
        << argument.name << " differs between two runs, seed " << kSeed;
  }
}

class CudaOps : public ::testing::TestWithParam<OpCase> {};

TEST_P(CudaOps, FloatIsNearReferenceEveryTime) {
  expect_near_reference_every_time(GetParam(), kCudaFloat);
}

TEST_P(CudaOps, Bf16IsNearReferenceEveryTime) {
  expect_near_reference_every_time(GetParam(), kCudaBf16);
}

INSTANTIATE_TEST_SUITE_P(Cuda, CudaOps, ::testing::ValuesIn(all_cases()),
                         [](const auto& test) { return test.param.name(); });

}  // namespace
}  // namespace routescope::testing
