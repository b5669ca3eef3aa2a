// The fast CPU backend against the double-precision reference, and against itself under other numbers of threads.
#include <gtest/gtest.h>
#include <omp.h>

#include <cstring>

#include "tests/kernels/near_reference.h"

namespace routescope::testing {
namespace {

class Backends : public ::testing::TestWithParam<OpCase> {};

TEST_P(Backends, FloatIsNearReference) {
  expect_near_reference(GetParam(), kFloat);
}

TEST_P(Backends, Bf16OperandsAreNearReference) {
  if (has_operand(GetParam())) expect_near_reference(GetParam(), kMixed);
}

TEST_P(Backends, SameBitsForEveryNumberOfThreads) {
  const int threads = omp_get_max_threads();
  for (const Types& types : {kFloat, kMixed}) {
    if (types.operand == kernels::DType::bf16 && !has_operand(GetParam())) continue;
    omp_set_num_threads(1);
    const Tensors first = GetParam().run(types, types);
    for (const int count : {1, 2, 3, 4}) {
      omp_set_num_threads(count);
      const Tensors again = GetParam().run(types, types);
      for (const Argument& argument : GetParam().arguments()) {
        const kernels::Tensor a = first[argument.name], b = again[argument.name];
        EXPECT_EQ(std::memcmp(a.data, b.data, a.bytes()), 0)
            << argument.name << " differs between 1 and " << count << " threads, seed " << kSeed;
      }
    }
    omp_set_num_threads(threads);
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, Backends, ::testing::ValuesIn(all_cases()),
                         [](const auto& test) { return test.param.name(); });

}  // namespace
}  // namespace routescope::testing
