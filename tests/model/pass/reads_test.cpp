// The read plan against MATH.md, "Residual stream and reads", written out by hand for a small depth.
#include "model/pass/reads.h"

#include <gtest/gtest.h>

#include "tests/model/pass/micro.h"

namespace routescope::model {
namespace {

ReadPlan plan_of(Residual residual, AttnResSource source, std::int64_t layers, std::int64_t blocks) {
  ModelConfig config = micro::config({"", residual, source});
  config.num_hidden_layers = layers;
  config.num_blocks = blocks;
  return ReadPlan(config);
}

using Sources = std::vector<std::vector<int>>;

Sources sources_of(const ReadPlan& plan) {
  Sources out;
  for (const Read& read : plan.reads)
    if (read.routed) out.push_back(read.sources);
  return out;
}

TEST(ReadPlan, BlockSumRestartsThePartialAtEveryBlock) {
  const ReadPlan plan = plan_of(Residual::block_attn_res, AttnResSource::block_sum, 4, 2);
  // Layers 0 and 2 open a block: their attention still reads the old partial, which then becomes a source.
  EXPECT_EQ(sources_of(plan), (Sources{{}, {0}, {0}, {0}, {0}, {0, 4}, {0, 4}, {0, 4}, {0, 4}}));
  std::vector<bool> continues;
  for (const Read& read : plan.reads) continues.push_back(read.continues);
  EXPECT_EQ(continues, (std::vector<bool>{false, false, true, true, true, false, true, true, true}));
  EXPECT_EQ(plan.columns, (std::vector<std::string>{"embedding", "block_1", "current"}));
  EXPECT_EQ(plan.reads[0].columns, (std::vector<int>{0}));  // the embedding, in its own column
  EXPECT_EQ(plan.reads[1].columns, (std::vector<int>{0, 2}));
  EXPECT_EQ(plan.reads[8].columns, (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(plan.reads[8].name, "final");
  EXPECT_EQ(plan.num_routed(), 9);
}

TEST(ReadPlan, CumulativeCopiesTheRunningPartial) {
  const ReadPlan plan = plan_of(Residual::block_attn_res, AttnResSource::cumulative, 4, 2);
  EXPECT_EQ(sources_of(plan), (Sources{{0}, {0}, {0}, {0}, {0, 4}, {0, 4}, {0, 4}, {0, 4}}));
  for (std::size_t r = 1; r < plan.reads.size(); ++r) EXPECT_TRUE(plan.reads[r].continues) << r;
  EXPECT_FALSE(plan.reads.back().routed);  // no final read
  EXPECT_EQ(plan.columns, (std::vector<std::string>{"embedding", "block_1", "current"}));
}

TEST(ReadPlan, FullModes) {
  EXPECT_EQ(sources_of(plan_of(Residual::full_attn_res, AttnResSource::block_sum, 2, 1)),
            (Sources{{}, {0}, {0, 1}, {0, 1, 2}, {0, 1, 2, 3}}));
  EXPECT_EQ(sources_of(plan_of(Residual::full_attn_res, AttnResSource::cumulative, 2, 1)),
            (Sources{{0}, {0, 1}, {0, 1, 2}, {0, 1, 2, 3}}));
}

TEST(ReadPlan, BlocksThatDoNotDivideTheDepth) {
  const ReadPlan plan = plan_of(Residual::block_attn_res, AttnResSource::block_sum, 5, 2);  // blocks of 3 and 2 layers
  EXPECT_EQ(plan.reads[6].sources, (std::vector<int>{0}));
  EXPECT_EQ(plan.reads[7].sources, (std::vector<int>{0, 6}));
  EXPECT_EQ(plan.num_columns(), 3);
}

TEST(ReadPlan, StandardHasNoReads) {
  const ReadPlan plan = plan_of(Residual::standard, AttnResSource::block_sum, 4, 2);
  EXPECT_EQ(plan.num_routed(), 0);
  EXPECT_EQ(plan.num_columns(), 0);
  EXPECT_EQ(plan.reads.size(), 9u);
}

TEST(ReadPlan, GroupsShareTheirSources) {
  for (const micro::Mode& mode : micro::modes()) {
    const ReadPlan plan(micro::config(mode));
    for (std::size_t r = 1; r < plan.reads.size(); ++r) {
      if (plan.reads[r].routed) {
        EXPECT_EQ(plan.reads[r].first_of_group, plan.reads[r].sources != plan.reads[r - 1].sources)
            << mode.name << " " << r;
      }
    }
  }
}

TEST(ReadPlan, DepthIsThirdsOfTheLayers) {
  const ReadPlan plan = plan_of(Residual::block_attn_res, AttnResSource::block_sum, 8, 4);
  std::string depths;
  for (int r = 0; r < 16; r += 2) depths += to_string(plan.depth(r))[0];
  EXPECT_EQ(depths, "eeemmmll");
  EXPECT_EQ(plan.depth(16), Depth::late);
}

}  // namespace
}  // namespace routescope::model
