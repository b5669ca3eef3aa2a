// The fast CPU backend against the double-precision reference, and against itself under other numbers of threads.
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cstring>

#include "tests/kernels/op_cases.h"
#include "tests/kernels/op_cases_attn_res.h"
#include "tests/kernels/tolerance.h"

namespace routescope::testing {
namespace {

std::vector<OpCase> all_cases() {
  std::vector<OpCase> cases;
  add_basics(cases);
  add_rows(cases, 1, 1024);
  add_rows(cases, 7, 96);
  add_rows(cases, 33, 896);
  add_rows(cases, 1000, 100);
  add_vocabulary(cases, 1, 883, 64);
  add_vocabulary(cases, 33, 10007, 70);
  add_vocabulary(cases, 1000, 257, 96);
  add_products(cases, 1, 1, 1);
  add_products(cases, 7, 33, 96);
  add_products(cases, 1000, 96, 64);
  add_products(cases, 300, 530, 70);
  add_products(cases, 33, 883, 300);
  add_attention(cases, {.batch = 1, .seq_len = 1, .heads = 2, .kv_heads = 1, .head_dim = 16});
  add_attention(cases, {.batch = 3, .seq_len = 5, .heads = 4, .kv_heads = 4, .head_dim = 6});
  add_attention(cases, {.batch = 2, .seq_len = 64, .heads = 4, .kv_heads = 1, .head_dim = 64});
  add_attention(cases, {.batch = 1, .seq_len = 130, .heads = 16, .kv_heads = 16, .head_dim = 16});
  add_attention(cases, {.batch = 2, .seq_len = 130, .heads = 4, .kv_heads = 2, .head_dim = 128});
  add_reads(cases);
  return cases;
}

class Backends : public ::testing::TestWithParam<OpCase> {};

/// Every result of the fast run within the tolerance of the reference's, from the same starting values.
void expect_near_reference(const OpCase& op, const Types& types) {
  const Tensors fast = op.run(types, types);
  const Tensors reference = op.run(kReference, types);
  for (const Argument& argument : op.arguments()) {
    if (argument.reduction == 0) continue;
    const Tensor result = fast[argument.name];
    EXPECT_TRUE(near(values_of(result), values_of(reference[argument.name]),
                     {result.dtype, argument.reduction, argument.magnitude}))
        << argument.name << ", seed " << kSeed;
  }
}

TEST_P(Backends, FloatIsNearReference) {
  expect_near_reference(GetParam(), kFloat);
}

bool has_operand(const OpCase& op) {
  const auto& all = op.arguments();
  return std::any_of(all.begin(), all.end(), [](const Argument& argument) { return argument.role == Role::operand; });
}

TEST_P(Backends, Bf16OperandsAreNearReference) {
  if (has_operand(GetParam())) expect_near_reference(GetParam(), kMixed);
}

TEST_P(Backends, SameBitsForEveryNumberOfThreads) {
  const int threads = omp_get_max_threads();
  for (const Types& types : {kFloat, kMixed}) {
    if (types.operand == DType::bf16 && !has_operand(GetParam())) continue;
    omp_set_num_threads(1);
    const Tensors first = GetParam().run(types, types);
    for (const int count : {1, 2, 3, 4}) {
      omp_set_num_threads(count);
      const Tensors again = GetParam().run(types, types);
      for (const Argument& argument : GetParam().arguments()) {
        const Tensor a = first[argument.name], b = again[argument.name];
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
