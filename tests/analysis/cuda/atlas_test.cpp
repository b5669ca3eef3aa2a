// The atlas of a model on a CUDA device (emulated in test_simt, real in test_cuda) is the one on the CPU.
#include "analysis/probe/atlas.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/analysis/probe/micro_model.h"

namespace routescope::testing {
namespace {

TEST(CudaAtlas, AgreesWithTheCpu) {
  if (!kernels::cuda_available()) GTEST_SKIP() << "no CUDA device";
  for (const model::AttnResSource source : {model::AttnResSource::block_sum, model::AttnResSource::cumulative}) {
    const model::ModelConfig config = micro_config(model::Residual::block_attn_res, source, 4);
    const analysis::ProbeTokens tokens = micro_tokens(2, 6);
    const analysis::AtlasOptions options{.seed = 5, .checks = 3};
    const analysis::Atlas expected =
        analysis::make_atlas(micro_model(config), tokens, options, *kernels::single_communicator());
    const analysis::Atlas found = analysis::make_atlas(micro_model(config, {.device = kernels::Device::cuda}), tokens,
                                                       options, *kernels::single_communicator());
    ASSERT_EQ(found.first_order.size(), expected.first_order.size());
    for (std::size_t i = 0; i < found.first_order.size(); ++i) {
      EXPECT_EQ(std::isnan(found.first_order[i]), std::isnan(expected.first_order[i])) << i;
      if (!std::isnan(expected.first_order[i])) {
        EXPECT_NEAR(found.first_order[i], expected.first_order[i], 1e-5) << i;
      }
    }
    EXPECT_EQ(found.checked, expected.checked);
    for (std::size_t i = 0; i < found.checked.size(); ++i)
      EXPECT_NEAR(found.true_effect[i], expected.true_effect[i], 1e-5) << i;
  }
}

}  // namespace
}  // namespace routescope::testing
