// Edits of reads on a CUDA device (emulated in test_simt, real in test_cuda) do what plain loops in double precision
// do.
#include <gtest/gtest.h>

#include <cmath>

#include "model/pass/pass.h"
#include "tests/analysis/probe/micro_model.h"
#include "tests/model/pass/edit_cases.h"

namespace routescope::testing {
namespace {

struct Mode {
  const char* name;
  model::Residual residual;
  model::AttnResSource source;
};

void PrintTo(const Mode& mode, std::ostream* out) {
  *out << mode.name;
}

class CudaEdits : public ::testing::TestWithParam<Mode> {
 protected:
  void SetUp() override {
    if (!kernels::cuda_available()) GTEST_SKIP() << "no CUDA device";
  }
  model::ModelConfig config = micro_config(GetParam().residual, GetParam().source, 4);
  analysis::ProbeTokens tokens = micro_tokens(2, 6);
  std::vector<int> reads{2, 4, 7};

  std::vector<float> nll(model::Pass& pass) const {
    std::vector<std::int32_t> targets(tokens.ids.begin() + 1, tokens.ids.end());
    targets.push_back(-1);
    targets[5] = -1;
    std::vector<float> out(targets.size());
    pass.nll(targets, out);
    return out;
  }
};

TEST_P(CudaEdits, EqualPlainLoops) {
  const model::Model model = micro_model(config, {.device = kernels::Device::cuda});
  PlainModel plain(model);
  model::Pass pass(model, tokens.sequences, tokens.positions, model::Pass::Kind::infer);
  pass.forward(tokens.ids);
  for (const EditCase& edit : edit_cases(model, reads, 1)) {
    pass.forward(tokens.ids, &edit.intervention, 2);
    const std::vector<double> expected = plain.nll(tokens.ids, 6, edit.rule);
    const std::vector<float> found = nll(pass);
    double sums[2] = {};
    for (std::size_t t = 0; t < found.size(); ++t)
      sums[t / 6] += std::abs(static_cast<double>(found[t]) - expected[t]) / 5;
    EXPECT_LT(std::max(sums[0], sums[1]), 1e-5) << edit.name;  // nats a token
  }
}

TEST_P(CudaEdits, EqualGivenWeightsToTheBitInBf16) {
  const model::Model model = micro_model(config, {.device = kernels::Device::cuda, .operands = kernels::DType::bf16});
  // Fused: the second phase of two has other roundings.
  model::Pass pass(model, tokens.sequences, tokens.positions, model::Pass::Kind::infer,
                   {.reads = model::ReadPhases::fused});
  for (const EditCase& edit : edit_cases(model, {4}, 0)) {
    pass.forward(tokens.ids);
    const model::ReadEdit& of_read = edit.intervention.edits.at(4);
    if (!of_read.extra.empty()) {  // bf16 extras: that they are taken, and count
      const std::vector<float> intact = nll(pass);
      pass.forward(tokens.ids, &edit.intervention);
      EXPECT_NE(nll(pass), intact) << edit.name;
      for (float value : nll(pass)) EXPECT_TRUE(std::isfinite(value)) << edit.name;
      continue;
    }
    // All from the partial as it is stored: a read that adds to its partial uses it before it is rounded, an edit
    // after.
    pass.forward(tokens.ids, nullptr, 4);
    const std::vector<double> alpha = kernels::host_values<double>(pass.alpha(4), pass.stream());
    std::vector<double> edited(alpha.size());
    of_read.alpha(alpha, edited);
    const kernels::OwnedTensor given(kernels::DType::f32, kernels::Device::cuda,
                                     {pass.tokens(), pass.alpha(4).shape[1]});
    kernels::cast(given.tensor,
                  kernels::Tensor(edited.data(), kernels::DType::f64, kernels::Device::cpu, {given.tensor.numel()}),
                  pass.stream());
    model::RoutingIntervention override;
    override.alpha_override[4] = given.tensor;
    pass.forward(tokens.ids, &override, 4);
    const std::vector<float> expected = nll(pass);
    pass.forward(tokens.ids, &edit.intervention, 4);
    EXPECT_EQ(nll(pass), expected) << edit.name;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Modes, CudaEdits,
    ::testing::Values(Mode{"block_sum", model::Residual::block_attn_res, model::AttnResSource::block_sum},
                      Mode{"cumulative", model::Residual::block_attn_res, model::AttnResSource::cumulative}),
    [](const auto& mode) { return std::string(mode.param.name); });

}  // namespace
}  // namespace routescope::testing
