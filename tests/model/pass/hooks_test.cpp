// The hooks of a pass: `needed` comes before parameters are read, `complete` after gradients were last added to.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "kernels/bf16.h"
#include "kernels/ops.h"
#include "model/pass/pass.h"
#include "tests/model/pass/micro.h"

namespace routescope::model {
namespace {

struct Variant {
  micro::Mode mode;
  bool tied;
  kernels::DType operands;
  Recompute recompute;
};

class Hooks : public ::testing::TestWithParam<Variant> {
 protected:
  static ModelConfig config() {
    ModelConfig config = micro::config(GetParam().mode);
    config.tie_word_embeddings = GetParam().tied;
    return config;
  }
  Hooks()
      : model_(config(), {.operands = GetParam().operands}),
        pass_(model_, 2, 5, Pass::Kind::train, {.recompute = GetParam().recompute}) {
    micro::randomize(model_, 5);
  }

  std::vector<float> gradients(const PassHooks& hooks = {}) {
    gradients_ = kernels::OwnedTensor(kernels::DType::f32, kernels::Device::cpu, {model_.layout().total()});
    pass_.accumulate(ids_, targets_, 0.1, gradients_.tensor, hooks);
    const auto all = gradients_.tensor.span<float>();
    return {all.begin(), all.end()};
  }

  Model model_;
  Pass pass_;
  kernels::OwnedTensor gradients_;
  std::vector<std::int32_t> ids_ = micro::tokens(10, 13, 1), targets_ = micro::tokens(10, 13, 2);
};

TEST_P(Hooks, GradientsAreAnnouncedWhenTheyAreComplete) {
  struct Announcement {
    std::int64_t begin;
    std::vector<float> values;
  };
  std::vector<Announcement> announced;
  const std::int64_t end = model_.layout().matrices_end();
  PassHooks hooks;
  hooks.complete = [&](std::int64_t begin) {
    const auto values = gradients_.tensor.rows(begin, end).span<float>();
    announced.push_back({begin, {values.begin(), values.end()}});
  };
  const std::vector<float> final = gradients(hooks);
  // The head if it is no embedding, every sublayer, the embedding.
  ASSERT_EQ(announced.size(), 1U + 2 * 4 + 1);
  EXPECT_EQ(announced.front().begin == end, GetParam().tied);
  EXPECT_EQ(announced.back().begin, 0);
  for (std::size_t i = 0; i < announced.size(); ++i) {
    const auto& [begin, values] = announced[i];
    if (i > 0) {
      EXPECT_LT(begin, announced[i - 1].begin);
    }
    EXPECT_TRUE(std::equal(values.begin(), values.end(), final.begin() + begin)) << "from " << begin;
  }
  EXPECT_EQ(final, gradients());
}

// No parameter exists before `needed` asked for it.
TEST_P(Hooks, ParametersAreAskedForBeforeTheyAreRead) {
  const std::vector<float> expected = gradients();
  const kernels::Tensor matrices = model_.operand_matrices();
  const kernels::OwnedTensor kept(matrices.dtype, kernels::Device::cpu, {matrices.numel()});
  kernels::copy(kept.tensor, matrices, {});
  std::memset(matrices.data, 0xff, matrices.bytes());  // NaN in every type
  std::int64_t there = 0;
  int asked = 0;
  PassHooks hooks;
  hooks.needed = [&](std::int64_t end) {
    EXPECT_GE(end, there);
    kernels::copy(matrices.rows(there, end), kept.tensor.rows(there, end), {});
    there = end;
    ++asked;
  };
  const std::vector<float> found = gradients(hooks);
  EXPECT_EQ(there, matrices.numel());
  EXPECT_EQ(asked, 1 + 2 * 4 + 1);
  EXPECT_EQ(found, expected);
}

std::vector<Variant> variants() {
  std::vector<Variant> out;
  for (const micro::Mode& mode : micro::modes())
    for (const bool tied : {true, false})
      for (const kernels::DType operands : {kernels::DType::f32, kernels::DType::bf16})
        for (const Recompute recompute : {Recompute::none, Recompute::attention})
          out.push_back({mode, tied, operands, recompute});
  return out;
}

INSTANTIATE_TEST_SUITE_P(Modes, Hooks, ::testing::ValuesIn(variants()), [](const auto& test) {
  const Variant& v = test.param;
  return v.mode.name + (v.tied ? "_tied" : "_untied") + (v.operands == kernels::DType::bf16 ? "_bf16" : "_f32") +
         (v.recompute == Recompute::attention ? "_recomputed" : "");
});

// ---- the layout that hooks refer to ----

TEST(Layout, MatricesThenVectorsPaddedForEveryShard) {
  for (const micro::Mode& mode : micro::modes()) {
    const ModelConfig config = micro::config(mode);
    const ParameterLayout alone(config);
    for (const std::int64_t shards : {1, 3, 4}) {
      const ParameterLayout layout(config, shards);
      EXPECT_EQ(layout.matrices_end() % (16 * shards), 0);
      EXPECT_EQ((layout.total() - layout.matrices_end()) % (16 * shards), 0);
      std::int64_t end = 0, vectors_end = layout.matrices_end();
      for (std::size_t i = 0; i < layout.all().size(); ++i) {
        const ParameterInfo& info = layout.all()[i];
        std::int64_t& next = info.decay ? end : vectors_end;
        EXPECT_GE(info.offset, next) << info.name;
        EXPECT_LT(info.offset, next + 16) << info.name;
        next = info.offset + info.size;
        EXPECT_EQ(info.name, alone.all()[i].name);
        EXPECT_TRUE(!info.decay || info.offset == alone.all()[i].offset) << info.name;
      }
      EXPECT_LE(end, layout.matrices_end());
      EXPECT_LE(vectors_end, layout.total());
      EXPECT_LT(layout.total(), vectors_end + 16 * shards);
    }
  }
}

TEST(Layout, AModelWithoutItsMatricesComputesTheSame) {
  const ModelConfig config = micro::config(micro::modes()[1]);
  Model model(config, {.operands = kernels::DType::bf16});
  micro::randomize(model, 4);
  Pass pass(model, 2, 5, Pass::Kind::train);
  const auto run = [&] {
    kernels::OwnedTensor gradients(kernels::DType::f32, kernels::Device::cpu, {model.layout().total()});
    pass.accumulate(micro::tokens(10, 13, 1), micro::tokens(10, 13, 2), 0.1, gradients.tensor);
    const auto all = gradients.tensor.span<float>();
    return std::vector<float>(all.begin(), all.end());
  };
  const std::vector<float> expected = run();
  const float gain = model.parameter("model.norm.weight").as<float>()[3];
  model.release_matrices();
  EXPECT_EQ(run(), expected);
  EXPECT_EQ(model.parameter("model.norm.weight").as<float>()[3], gain);
  EXPECT_THROW(model.flat(), std::logic_error);
  EXPECT_THROW(model.parameter("model.embed_tokens.weight"), std::logic_error);
  EXPECT_THROW(model.refresh_operands(), std::logic_error);
  EXPECT_THROW(model.save("."), std::logic_error);
  EXPECT_THROW(Model(config, {}).release_matrices(), std::logic_error);
}

}  // namespace
}  // namespace routescope::model
