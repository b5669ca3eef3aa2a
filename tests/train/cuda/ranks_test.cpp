// Many ranks take turns on one device: overlapping work on streams changes no bit.
#include <gtest/gtest.h>

#include "tests/train/run/micro_run.h"
#include "tests/train/run/trainer.h"

namespace routescope::testing {
namespace {

class CudaRanks : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!kernels::cuda_available()) GTEST_SKIP() << "no CUDA device";
  }
  /// 8 micro-batches a step: each of 2 ranks has some without hooks between its first and its last one.
  train::TrainConfig config(const std::string& zero, const std::string& precision, const std::string& graph) const {
    return micro_.config("unused", {"device=cuda", "train.tokens_per_step=128", "train.micro_batch=1",
                                    "model.num_hidden_layers=2", "distributed.zero=" + zero, "precision=" + precision,
                                    "kernels.graph=" + graph, "distributed.bucket_mb=1"});
  }
  MicroRun micro_;
};

TEST_F(CudaRanks, ZeroAndGraphsChangeNoBit) {
  for (const char* precision : {"f32", "bf16"}) {
    const Trained expected = train(config("0", precision, "off"), 2, 3);
    EXPECT_LT(expected.losses.back(), expected.losses.front());
    expect_same_bits(train(config("1", precision, "off"), 2, 3), expected, precision);
    expect_same_bits(train(config("1", precision, "on"), 2, 3), expected, std::string(precision) + " as a graph");
    const Trained one = train(config("1", precision, "off"), 1, 3);
    for (std::size_t i = 0; i < one.losses.size(); ++i)
      EXPECT_NEAR(expected.losses[i], one.losses[i], 1e-4 * one.losses[i]) << precision << ", step " << i + 1;
  }
}

}  // namespace
}  // namespace routescope::testing
