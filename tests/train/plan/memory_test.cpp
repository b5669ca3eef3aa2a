// The memory that a rank needs.
#include "train/plan/memory.h"

#include <gtest/gtest.h>

#include <map>

#include "model/pass/parameters.h"
#include "model/pass/reads.h"
#include "tests/train/plan/plan_case.h"

namespace routescope::train {
namespace {

using testing::forecast_config;

TEST(PlanMemoryTest, ZeroOneSharesStatesAndMasters) {
  TrainConfig config = forecast_config();
  config.device = "cpu";
  config.checkpoint.async = "off";
  const auto parts = [&](std::int64_t ranks) {
    std::map<std::string, std::size_t> by_name;
    for (const kernels::Arena::Part& part : memory_parts(config, ranks)) by_name[part.name] = part.bytes;
    return by_name;
  };
  const auto alone = parts(1), shared = parts(8);
  const auto elements = static_cast<std::size_t>(model::ParameterLayout(config.model, 8).matrices_end());
  EXPECT_EQ(alone.at("gradients"), shared.at("gradients"));
  EXPECT_NEAR(static_cast<double>(alone.at("optimizer state (adamw)") - shared.at("optimizer state (adamw)")),
              2.0 * 4 * static_cast<double>(elements) * 7 / 8, 1e4);
  const std::size_t all = total_bytes(memory_parts(config, 1)), share = total_bytes(memory_parts(config, 8));
  // In bf16 the f32 masters are shared as the state is. For a checkpoint one bucket of masters is collected.
  EXPECT_NEAR(static_cast<double>(all - share), 3.0 * 4 * static_cast<double>(elements) * 7 / 8 - (4 << 20), 1e4);
  config.distributed.zero = 0;
  EXPECT_NEAR(static_cast<double>(total_bytes(memory_parts(config, 8))), static_cast<double>(all), 1e4);
}

TEST(PlanMemoryTest, RankZeroWritesTheModel) {
  TrainConfig config = forecast_config();
  config.device = "cpu";
  const auto host = [&](std::int64_t ranks, std::int64_t rank) {
    return static_cast<double>(total_bytes(host_memory_parts(config, ranks, rank)));
  };
  const auto parameters = static_cast<double>(model::ParameterLayout(config.model, 4).total());
  EXPECT_NEAR(host(1, 0), 3 * 4 * parameters, 12e6);  // and the matrices that are timed at the start
  EXPECT_NEAR(host(4, 0) - host(4, 1), 4 * parameters, 1e6);
  config.checkpoint.async = "off";
  // Buffers for sums, MPI, and the matrices that are timed at the start.
  EXPECT_LT(host(4, 1), 48e6);
  EXPECT_NEAR(host(4, 0) - host(4, 1), 4 * parameters, 1e6);  // gathered from shares of the f32 masters
  config.precision = "f32";
  EXPECT_LT(host(4, 0), 48e6);
}

// Of 5 sequences over 4 ranks one rank has 2: every rank is planned with as many.
TEST(PlanMemoryTest, WeightsByTokenAreThoseOfTheLargestShare) {
  TrainConfig config = forecast_config();
  config.model.residual = model::Residual::block_attn_res;
  config.model.num_blocks = 2;
  config.routing.per_token_every = 1;
  config.routing.sequences = 5;
  const model::ReadPlan plan(config.model);
  const auto row = static_cast<std::size_t>(plan.num_routed() * plan.num_columns() * config.data.sequence_length);
  const auto bytes = [&](std::int64_t ranks, std::int64_t rank) {
    for (const kernels::Arena::Part& part : host_memory_parts(config, ranks, rank))
      if (part.name == "routing weights by token") return part.bytes;
    return std::size_t{0};
  };
  EXPECT_GT(row, 0U);
  EXPECT_EQ(bytes(1, 0), 5 * row * (4 + 4 + 2));
  EXPECT_EQ(bytes(4, 1), 2 * row * (4 + 4));
  EXPECT_EQ(bytes(4, 0), 2 * row * (4 + 4) + 5 * row * (4 + 4 + 2));
  config.routing.per_token_every = 0;
  EXPECT_EQ(bytes(4, 0), 0U);
}

TEST(PlanMemoryTest, WithTheLargestMicroBatchEveryRankHasOne) {
  TrainConfig config = forecast_config();
  config.device = "cpu";
  const auto plenty = std::size_t{1} << 40;
  EXPECT_EQ(largest_micro_batch(config, plenty, 1), 16);
  EXPECT_EQ(largest_micro_batch(config, plenty, 4), 4);
  EXPECT_EQ(largest_micro_batch(config, plenty, 16), 1);
  EXPECT_EQ(largest_micro_batch(config, plenty, 4, plenty), 0);
  EXPECT_EQ(largest_micro_batch(config, 1 << 20), 0);
}

}  // namespace
}  // namespace routescope::train
