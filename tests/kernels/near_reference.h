// What holds a backend against the reference: all cases, and the comparison of one.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/kernels/op_cases.h"
#include "tests/kernels/op_cases_attn_res.h"
#include "tests/kernels/tolerance.h"

namespace routescope::testing {

inline std::vector<OpCase> all_cases() {
  std::vector<OpCase> cases;
  add_basics(cases);
  add_rows(cases, 1, 1024);
  add_rows(cases, 7, 96);
  add_rows(cases, 33, 896);
  add_rows(cases, 1000, 100);
  add_vocabulary(cases, 1, 883, 64);
  add_vocabulary(cases, 33, 10007, 70);
  add_vocabulary(cases, 1000, 257, 96);
  add_vocabulary(cases, 2, 80021, 8);
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
  // Heads of 64 and 128, which the CUDA backend gives to the tensor cores: one row, part of a tile, whole tiles and a
  // row more, several tiles of queries and of keys.
  add_attention_products(cases, {.batch = 2, .seq_len = 1, .heads = 4, .kv_heads = 1, .head_dim = 64});
  add_attention_products(cases, {.batch = 2, .seq_len = 7, .heads = 4, .kv_heads = 4, .head_dim = 64});
  add_attention_products(cases, {.batch = 2, .seq_len = 33, .heads = 8, .kv_heads = 2, .head_dim = 64});
  add_attention_products(cases, {.batch = 2, .seq_len = 65, .heads = 4, .kv_heads = 1, .head_dim = 64});
  add_attention_products(cases, {.batch = 2, .seq_len = 130, .heads = 2, .kv_heads = 2, .head_dim = 64});
  add_attention_products(cases, {.batch = 1, .seq_len = 200, .heads = 4, .kv_heads = 1, .head_dim = 64});
  add_attention_products(cases, {.batch = 2, .seq_len = 1, .heads = 2, .kv_heads = 2, .head_dim = 128});
  add_attention_products(cases, {.batch = 2, .seq_len = 7, .heads = 4, .kv_heads = 1, .head_dim = 128});
  add_attention_products(cases, {.batch = 2, .seq_len = 33, .heads = 4, .kv_heads = 4, .head_dim = 128});
  add_attention_products(cases, {.batch = 2, .seq_len = 64, .heads = 4, .kv_heads = 1, .head_dim = 128});
  add_attention_products(cases, {.batch = 2, .seq_len = 65, .heads = 2, .kv_heads = 1, .head_dim = 128});
  add_attention_products(cases, {.batch = 1, .seq_len = 200, .heads = 2, .kv_heads = 1, .head_dim = 128});
  add_attention_lse(cases, {.batch = 2, .seq_len = 65, .heads = 4, .kv_heads = 1, .head_dim = 64});
  add_attention_lse(cases, {.batch = 1, .seq_len = 130, .heads = 2, .kv_heads = 1, .head_dim = 128});
  add_reads(cases);
  return cases;
}

/// Every result of the fast run within the tolerance of the reference's, from the same starting values. Returns the
/// fast run's tensors.
inline Tensors expect_near_reference(const OpCase& op, const Types& types) {
  Tensors fast = op.run(types, types);
  const Tensors reference = op.run(kReference, types);
  for (const Argument& argument : op.arguments()) {
    if (argument.reduction == 0) continue;
    const kernels::Tensor result = fast[argument.name];
    EXPECT_TRUE(near(values_of(result), values_of(reference[argument.name]),
                     {result.dtype, argument.reduction, argument.magnitude, op.roundoff_on_the_way(types)}))
        << argument.name << ", seed " << kSeed;
  }
  return fast;
}

inline bool has_operand(const OpCase& op) {
  const auto& all = op.arguments();
  return std::any_of(all.begin(), all.end(), [](const Argument& argument) { return argument.role == Role::operand; });
}

}  // namespace routescope::testing
