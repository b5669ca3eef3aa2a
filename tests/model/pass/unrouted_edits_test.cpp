// Edits of reads that are not routed: those of a standard model, and the final norm of one without a final read.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "model/pass/pass.h"
#include "tests/model/pass/micro.h"

namespace routescope::testing {
namespace {

// h of a standard model's reads: 0.5 of the partial and twice a table's row.
TEST(EditsOfReadsThatAreNotRouted, MixThePartialAndTheExtrasForAllAndForEachSequence) {
  model::Model model(micro::config(micro::modes()[0]), {});
  ASSERT_FALSE(model.config().routed());
  model.initialize(1);
  const std::vector<std::int32_t> ids{0, 1, 2, 3, 4, 3, 2, 1};
  const int last = static_cast<int>(model.plan().reads.size()) - 1;
  std::vector<float> row;
  for (int i = 0; i < 8; ++i) row.push_back(static_cast<float>(i) - 3);
  const kernels::Tensor table(row.data(), kernels::DType::f32, kernels::Device::cpu, {8});
  const auto half = [](std::span<const double> alpha, std::span<double> edited) {
    for (std::size_t t = 0; t < alpha.size(); ++t) {
      EXPECT_EQ(alpha[t], 1);
      edited[2 * t] = 0.5;
      edited[2 * t + 1] = 2;
    }
  };
  model::RoutingIntervention intervention;
  for (int r : {1, last}) intervention.edits[r] = {.extra = {{.table = table}}, .alpha = half};
  const auto logits_of = [&](model::Pass& pass) {
    const kernels::OwnedTensor out(kernels::DType::f32, kernels::Device::cpu, {8, model.config().vocab_size});
    pass.logits(0, 8, out.tensor);
    return kernels::host_values<double>(out.tensor, pass.stream());
  };
  model::Pass pass(model, 2, 4, model::Pass::Kind::infer, {.reads = model::ReadPhases::fused});
  pass.forward(ids, &intervention);
  const std::vector<double> all = logits_of(pass);
  const std::vector<model::RoutingIntervention> each{intervention, {}};
  pass.forward_each(ids, each);
  const std::vector<double> first = logits_of(pass);
  const std::vector<double> partial = kernels::host_values<double>(pass.partial(last), pass.stream());
  pass.forward(ids);
  const std::vector<double> intact = logits_of(pass);
  const std::size_t half_way = all.size() / 2;
  EXPECT_TRUE(std::equal(all.begin(), all.begin() + half_way, first.begin()));
  EXPECT_TRUE(std::equal(intact.begin() + half_way, intact.end(), first.begin() + half_way));
  EXPECT_FALSE(std::equal(all.begin(), all.begin() + half_way, intact.begin()));
  // The first token's logits again from its partial: the final norm of the edited h, then the head.
  const auto gain = kernels::host_values<double>(model.parameter("model.norm.weight"), pass.stream());
  const auto head = kernels::host_values<double>(
      model.parameter(model.config().tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight"),
      pass.stream());
  std::vector<double> h;
  double squares = 0;
  for (std::size_t i = 0; i < 8; ++i) {
    h.push_back(0.5 * partial[i] + 2 * row[i]);
    squares += h[i] * h[i] / 8;
  }
  for (std::size_t v = 0; v < head.size() / 8; ++v) {
    double logit = 0;
    for (std::size_t i = 0; i < 8; ++i)
      logit += head[v * 8 + i] * gain[i] * h[i] / std::sqrt(squares + model.config().rms_norm_eps);
    EXPECT_NEAR(all[v], logit, 1e-5) << v;
  }
}

}  // namespace
}  // namespace routescope::testing
