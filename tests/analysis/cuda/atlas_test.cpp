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
    const analysis::ProbeIdentity identity =
        analysis::identify(config, micro_tokens(2, 6), {.seed = 5, .atlas_checks = 3});
    const auto alone = kernels::single_communicator();
    const analysis::Atlas expected = analysis::make_atlas(micro_model(config), identity, 0, *alone);
    const analysis::Atlas found =
        analysis::make_atlas(micro_model(config, {.device = kernels::Device::cuda}), identity, 0, *alone);
    ASSERT_EQ(found.first_order.size(), expected.first_order.size());
    for (std::size_t i = 0; i < found.first_order.size(); ++i) {
      EXPECT_EQ(std::isnan(found.first_order[i].value), std::isnan(expected.first_order[i].value)) << i;
      if (!std::isnan(expected.first_order[i].value)) {
        EXPECT_NEAR(found.first_order[i].value, expected.first_order[i].value, 1e-5) << i;
        EXPECT_NEAR(found.estimate[i].value, expected.estimate[i].value, 1e-5) << i;
      }
    }
    ASSERT_EQ(found.checked.size(), expected.checked.size());
    for (std::size_t i = 0; i < found.checked.size(); ++i) {
      EXPECT_EQ(found.checked[i].read, expected.checked[i].read) << i;
      EXPECT_EQ(found.checked[i].column, expected.checked[i].column) << i;
      EXPECT_NEAR(found.checked[i].true_effect.value, expected.checked[i].true_effect.value, 1e-5) << i;
    }
  }
}

}  // namespace
}  // namespace routescope::testing
