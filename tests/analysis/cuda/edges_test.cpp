// What is measured of edges on a CUDA device (emulated in test_simt, real in test_cuda) is what the CPU measures, at
// the same cost in plain evaluations.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>

#include "analysis/circuits/measure_circuit.h"
#include "analysis/coalitions/measure_coalitions.h"
#include "analysis/probe/atlas.h"
#include "analysis/probe/probe.h"
#include "analysis/writers/writers.h"
#include "tests/analysis/probe/micro_model.h"
#include "tests/analysis/probe/probe_of.h"

namespace routescope::testing {
namespace {

using analysis::Ablation;
using analysis::Estimate;
using model::AttnResSource;
using model::Residual;

// Differences of f32 likelihoods of order 4 nats, averaged over at least 5 predicted tokens.
constexpr double kTolerance = 2e-5;

void expect_near(const std::vector<double>& found, const std::vector<double>& expected, const char* what,
                 double tolerance = kTolerance) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(std::isnan(found[i]), std::isnan(expected[i])) << what << " [" << i << "]";
    if (std::isnan(expected[i])) continue;
    EXPECT_NEAR(found[i], expected[i], tolerance) << what << " [" << i << "]";
  }
}

std::vector<double> values(const std::vector<Estimate>& estimates) {
  std::vector<double> out;
  for (const Estimate& one : estimates) out.push_back(one.value);
  return out;
}

/// The same measurement of the same model on either device, and how long each took.
template <class Measure>
auto on_both(const model::ModelConfig& config, const char* what, const Measure& measure) {
  const auto timed = [&](kernels::Device device) {
    const model::Model model = micro_model(config, {.device = device});
    const auto begin = std::chrono::steady_clock::now();
    auto row = measure(model);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    ::testing::Test::RecordProperty(std::string(what) + (device == kernels::Device::cuda ? "_cuda_s" : "_cpu_s"),
                                    std::to_string(seconds.count()));
    return row;
  };
  auto expected = timed(kernels::Device::cpu);
  return std::pair(timed(kernels::Device::cuda), std::move(expected));
}

class CudaEdges : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!kernels::cuda_available()) GTEST_SKIP() << "no CUDA device";
  }
};

TEST_F(CudaEdges, ExactAtlasAgreesWithTheCpu) {
  const model::ModelConfig config = micro_config(Residual::block_attn_res, AttnResSource::block_sum, 3);
  const analysis::ProbeIdentity identity = analysis::identify(
      config, micro_tokens(2, 6), {.seed = 5, .atlas = true, .atlas_checks = analysis::most_atlas_checks});
  const auto [found, expected] = on_both(config, "atlas", [&](const model::Model& model) {
    return analysis::make_atlas(model, identity, 0, *kernels::single_communicator());
  });
  expect_near(values(found.first_order), values(expected.first_order), "first order", 1e-4);
  ASSERT_EQ(found.checked.size(), expected.checked.size());
  ASSERT_GT(expected.checked.size(), 10U);
  for (std::size_t i = 0; i < expected.checked.size(); ++i) {
    EXPECT_EQ(found.checked[i].read, expected.checked[i].read);
    EXPECT_EQ(found.checked[i].column, expected.checked[i].column);
    EXPECT_NEAR(found.checked[i].true_effect.value, expected.checked[i].true_effect.value, kTolerance);
  }
  EXPECT_EQ(found.check_passes, expected.check_passes);
}

TEST_F(CudaEdges, KeysValuesFrozenAndDirectAgreeWithTheCpu) {
  const model::ModelConfig config = micro_config(Residual::block_attn_res, AttnResSource::cumulative, 3);
  analysis::ProbeSettings settings{
      .seed = 5,
      .ablations = {Ablation::mean, Ablation::mean_key, Ablation::mean_both, Ablation::resample_key,
                    Ablation::resample_both, Ablation::patch, Ablation::patch_key, Ablation::patch_both},
      .sets = {"embedding.mlp.early", "1.mlp-2.mlp:history"},
      .controls = 0};
  settings.frozen = settings.direct = true;
  const auto [found, expected] = on_both(config, "parts", [&](const model::Model& model) {
    return probe_of(model, micro_tokens(2, 6), settings, 0, micro_tokens(2, 6, 14));
  });
  for (std::size_t a = 0; a < settings.ablations.size(); ++a) {
    for (std::size_t s = 0; s < 2; ++s) {
      SCOPED_TRACE(to_string(settings.ablations[a]) + ", set " + std::to_string(s));
      const analysis::SetEffect &cuda = found.ablations[a].sets[s], &cpu = expected.ablations[a].sets[s];
      expect_near(cuda.delta_nll_sequence, cpu.delta_nll_sequence, "total");
      expect_near(cuda.frozen.delta_nll_sequence, cpu.frozen.delta_nll_sequence, "frozen");
      expect_near(cuda.direct.delta_nll_sequence, cpu.direct.delta_nll_sequence, "direct");
      EXPECT_GT(std::abs(cpu.delta_nll.value), 1e-4) << "too small to tell";
    }
  }
  EXPECT_EQ(found.cost.computed, expected.cost.computed);
}

TEST_F(CudaEdges, WritersAgreeWithTheCpu) {
  for (const Residual residual : {Residual::standard, Residual::block_attn_res}) {
    const model::ModelConfig config = micro_config(residual, AttnResSource::block_sum, 3);
    const auto [found, expected] = on_both(config, "writers", [&](const model::Model& model) {
      analysis::ProbeSettings settings{.seed = 5};
      settings.writers = true;
      const analysis::ProbeIdentity identity = analysis::identify(model.config(), micro_tokens(2, 6), settings);
      return analysis::measure_writers(model, identity, 0, 0.01, *kernels::single_communicator());
    });
    expect_near(values(found.contribution), values(expected.contribution), "contribution");
    expect_near(values(found.norm_mass), values(expected.norm_mass), "norm mass");
    for (std::size_t w = 0; w < expected.zero.size(); ++w) {
      expect_near(found.zero[w].delta_nll_sequence, expected.zero[w].delta_nll_sequence, "zero");
      expect_near(found.mean[w].delta_nll_sequence, expected.mean[w].delta_nll_sequence, "mean");
    }
    EXPECT_EQ(found.passes, expected.passes);
  }
}

TEST_F(CudaEdges, CoalitionsAgreeWithTheCpu) {
  const model::ModelConfig config = micro_config(Residual::block_attn_res, AttnResSource::block_sum, 3);
  const auto [found, expected] = on_both(config, "coalitions", [&](const model::Model& model) {
    return analysis::measure_coalitions(model, micro_tokens(2, 6), {.permutations = 1},
                                        *kernels::single_communicator());
  });
  expect_near(values(found.alone), values(expected.alone), "alone");
  expect_near(values(found.pair), values(expected.pair), "pairs");
  expect_near(values(found.shapley), values(expected.shapley), "Shapley values");
  expect_near(values(found.slice_shapley), values(expected.slice_shapley), "Shapley values of slices");
  EXPECT_EQ(found.in_company, expected.in_company);
  EXPECT_EQ(found.passes, expected.passes);
}

TEST_F(CudaEdges, CircuitsAgreeWithTheCpu) {
  const model::ModelConfig config = micro_config(Residual::block_attn_res, AttnResSource::cumulative, 3);
  const analysis::CircuitIdentity identity =
      analysis::identify_circuits(config, micro_tokens(4, 6), {.ablation = Ablation::zero, .baselines = 1});
  const auto [found, expected] =
      on_both(config, "circuit", [&](const model::Model& model) { return analysis::measure_circuit(model, identity); });
  expect_near(values(found.score), values(expected.score), "score");
  expect_near(found.magnitude, expected.magnitude, "magnitude");
  EXPECT_EQ(found.kept, expected.kept);
  expect_near(found.loss, expected.loss, "losses of all orders");
  EXPECT_EQ(found.passes, expected.passes);
}

}  // namespace
}  // namespace routescope::testing
