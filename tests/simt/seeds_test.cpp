// Kernels of the backend under several orders of blocks and threads: near the reference, and the same bits, in each.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "tests/kernels/near_reference.h"
#include "tests/simt/device_array.h"

namespace routescope::testing {
namespace {

constexpr std::uint64_t kSeeds = 5;

/// Small cases in which blocks reduce, warps exchange, and gradients are summed over tokens.
std::vector<OpCase> cases_of_many_meetings() {
  std::vector<OpCase> all, chosen;
  add_rows(all, 7, 96);
  add_vocabulary(all, 7, 883, 64);
  add_attention(all, {.batch = 1, .seq_len = 33, .heads = 2, .kv_heads = 1, .head_dim = 64});
  add_read(all, 7, 100, 5, {.last_source_is_partial = true, .logit_bias = true, .learned_bias = true});
  add_deferred(all, 7, 100, 3, 2);
  add_statistics(all, 33, 5);
  const std::set<std::string> left_out{"swiglu", "embedding_forward"};  // no thread waits for another
  for (const OpCase& op : all) {
    const auto begins = [&](const std::string& name) { return op.name().starts_with(name); };
    if (std::none_of(left_out.begin(), left_out.end(), begins)) chosen.push_back(op);
  }
  return chosen;
}

class Orders : public ::testing::TestWithParam<OpCase> {};

TEST_P(Orders, ChangeNoBit) {
  for (const Types& types : {kCudaFloat, kCudaBf16}) {
    std::map<std::string, std::set<std::vector<double>>> results;
    for (std::uint64_t s = 0; s < kSeeds; ++s) {
      const simt::Seeded seeded(s);
      const Tensors found = expect_near_reference(GetParam(), types);
      for (const Argument& argument : GetParam().arguments())
        if (argument.reduction > 0) results[argument.name].insert(values_of(found[argument.name]));
    }
    for (const auto& [name, different] : results) EXPECT_EQ(different.size(), 1u) << name << " depends on the seed";
  }
}

INSTANTIATE_TEST_SUITE_P(Simt, Orders, ::testing::ValuesIn(cases_of_many_meetings()),
                         [](const auto& test) { return test.param.name(); });

}  // namespace
}  // namespace routescope::testing
