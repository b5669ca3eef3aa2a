// The atlas of a model on a CUDA device (emulated in test_simt, real in test_cuda) is the one on the CPU.
#include "analysis/atlas.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/analysis/micro_model.h"

namespace routescope::testing {
namespace {

TEST(CudaAtlas, AgreesWithTheCpu) {
  if (!cuda_available()) GTEST_SKIP() << "no CUDA device";
  for (const AttnResSource source : {AttnResSource::block_sum, AttnResSource::cumulative}) {
    const ModelConfig config = micro_config(Residual::block_attn_res, source, 4);
    const ProbeTokens tokens = micro_tokens(2, 6);
    const AtlasOptions options{.seed = 5, .checks = 3};
    const Atlas expected = make_atlas(micro_model(config), tokens, options, *single_communicator());
    const Atlas found =
        make_atlas(micro_model(config, {.device = Device::cuda}), tokens, options, *single_communicator());
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
