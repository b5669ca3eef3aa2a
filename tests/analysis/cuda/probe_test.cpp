// A probe on a CUDA device (emulated in test_simt, real in test_cuda) finds what it finds on the CPU.
#include "analysis/probe/probe.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/analysis/probe/micro_model.h"
#include "tests/analysis/probe/probe_of.h"

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

class CudaProbe : public ::testing::TestWithParam<Mode> {};

void expect_near(const std::vector<double>& found, const std::vector<double>& expected, double tolerance,
                 const char* what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (std::isnan(expected[i])) {
      EXPECT_TRUE(std::isnan(found[i])) << what << " [" << i << "]";
    } else {
      EXPECT_NEAR(found[i], expected[i], tolerance) << what << " [" << i << "]";
    }
  }
}

TEST_P(CudaProbe, AgreesWithTheCpu) {
  if (!kernels::cuda_available()) GTEST_SKIP() << "no CUDA device";
  const model::ModelConfig config = micro_config(GetParam().residual, GetParam().source, 4);
  const analysis::ProbeTokens tokens = micro_tokens(3, 8);
  const analysis::ProbeRow expected = probe_of(micro_model(config), tokens, {.seed = 5, .controls = 0});
  const analysis::ProbeRow found =
      probe_of(micro_model(config, {.device = kernels::Device::cuda}), tokens, {.seed = 5, .controls = 0});
  // Differences of f32 likelihoods of order 4 nats, summed over 7 predicted tokens.
  expect_near(found.intact_nll_sequence, expected.intact_nll_sequence, 1e-5, "intact nll");
  expect_near(found.mass, expected.mass, 1e-6, "mass");
  const auto numbers = [](const analysis::ProbeRow& row, double analysis::SetEffect::*number) {
    std::vector<double> values;
    for (const analysis::SetEffect& set : row.ablations.front().sets) values.push_back(set.*number);
    return values;
  };
  expect_near(found.ablations.front().delta_nll(), expected.ablations.front().delta_nll(), 1e-5, "delta_nll");
  using Set = analysis::SetEffect;
  expect_near(numbers(found, &Set::kl), numbers(expected, &Set::kl), 1e-5, "kl");
  expect_near(numbers(found, &Set::coverage), numbers(expected, &Set::coverage), 0, "coverage");
}

TEST_P(CudaProbe, AgreesWithTheCpuUnderEveryAblation) {
  if (!kernels::cuda_available()) GTEST_SKIP() << "no CUDA device";
  const model::ModelConfig config = micro_config(GetParam().residual, GetParam().source, 4);
  const analysis::ProbeTokens tokens = micro_tokens(2, 6), aligned = micro_tokens(2, 6, 14);
  const analysis::ProbeIdentity identity = analysis::identify(
      config, tokens,
      {.seed = 5,
       .ablations = {analysis::Ablation::mask, analysis::Ablation::zero, analysis::Ablation::mean,
                     analysis::Ablation::resample, analysis::Ablation::freeze, analysis::Ablation::patch},
       .sets = {"embedding.mlp.early", "2.mlp-3.mlp:history", "3.attn:current"},
       .controls = 1},
      aligned);
  const analysis::ProbeRow expected = analysis::probe(micro_model(config), identity);
  const analysis::ProbeRow found = analysis::probe(micro_model(config, {.device = kernels::Device::cuda}), identity);
  for (std::size_t a = 0; a < expected.ablations.size(); ++a) {
    const analysis::AblationEffects &cuda = found.ablations[a], &cpu = expected.ablations[a];
    SCOPED_TRACE(analysis::to_string(cpu.ablation));
    // Differences of f32 likelihoods of order 4 nats, averaged over 5 predicted tokens.
    ASSERT_EQ(cuda.sets.size(), cpu.sets.size());
    for (std::size_t s = 0; s < cpu.sets.size(); ++s) {
      const analysis::SetEffect &one = cuda.sets[s], &other = cpu.sets[s];
      expect_near(one.delta_nll_sequence, other.delta_nll_sequence, 1e-5, "delta_nll_sequence");
      expect_near(one.control.delta_nll_sequence, other.control.delta_nll_sequence, 1e-5, "the control's");
      expect_near({one.kl}, {other.kl}, 1e-5, "kl");
      EXPECT_GT(std::abs(other.delta_nll.value), 1e-4) << "too small to tell";
    }
  }
  expect_near(found.alpha_variance, expected.alpha_variance, 1e-6, "alpha_variance");
}

INSTANTIATE_TEST_SUITE_P(
    Modes, CudaProbe,
    ::testing::Values(Mode{"block_sum", model::Residual::block_attn_res, model::AttnResSource::block_sum},
                      Mode{"cumulative", model::Residual::block_attn_res, model::AttnResSource::cumulative}),
    [](const auto& mode) { return std::string(mode.param.name); });

}  // namespace
}  // namespace routescope::testing
