// The time of collectives by formula, and descriptions of clusters.
#include "train/plan/cluster.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <regex>

#include "data/base/error.h"
#include "data/base/files.h"
#include "kernels/device.h"
#include "tests/places.h"
#include "tests/train/plan/plan_case.h"
#include "tests/train/run/micro_run.h"
#include "train/plan/plan_text.h"

namespace routescope::train {
namespace {

namespace fs = std::filesystem;
using testing::round_cluster;
using testing::TemporaryDirectory;

std::string error_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

TEST(ClusterTest, ARingTakesAsManyStepsAsThereAreOtherRanks) {
  const Cluster c = round_cluster();
  EXPECT_EQ(ring_seconds(c, 1, 1e9), 0);
  // One node: 3 steps, three quarters of the bytes at the node's own rate.
  EXPECT_NEAR(ring_seconds(c, 4, 1e9), 3e-6 + 0.75e9 / 100e9, 1e-12);
  // Two nodes: 7 steps of which one is between them; a node's four links carry 40 GB/s together.
  EXPECT_NEAR(ring_seconds(c, 8, 1e9), 6e-6 + 10e-6 + 0.875e9 / 40e9, 1e-12);
  // The slower kind of link determines the rate.
  Cluster fast = c;
  fast.inter_node.bytes_per_second = 1e12;
  EXPECT_NEAR(ring_seconds(fast, 8, 1e9), 6e-6 + 10e-6 + 0.875e9 / 100e9, 1e-12);
}

TEST(ClusterTest, ATreeTakesAsManyStepsAsLevels) {
  const Cluster c = round_cluster();
  EXPECT_EQ(tree_seconds(c, 1, 1e9), 0);
  EXPECT_NEAR(tree_seconds(c, 16, 0), 2 * 1e-6 + 2 * 10e-6, 1e-15);
  EXPECT_NEAR(tree_seconds(c, 12, 0), 2 * 1e-6 + 2 * 10e-6, 1e-15);  // three nodes take two levels as well
  EXPECT_NEAR(exchange_seconds(c, 16), 2 * tree_seconds(c, 16, 0), 1e-18);
  // With few bytes the tree wins, and the more so the more ranks; with many both are bound by the links alike.
  EXPECT_LT(tree_seconds(c, 4096, 1e3), ring_seconds(c, 4096, 1e3) / 100);
  EXPECT_NEAR(tree_seconds(c, 64, 1e15) / ring_seconds(c, 64, 1e15), 1, 1e-6);
}

TEST(ClusterTest, AllToAllSendsEveryOtherRankItsPart) {
  const Cluster c = round_cluster();
  EXPECT_EQ(all_to_all_seconds(c, 1, 1e9), 0);
  EXPECT_NEAR(all_to_all_seconds(c, 4, 1e9), 3 * (1e-6 + 0.25e9 / 100e9), 1e-12);
  // Eight ranks: three messages within the node, four between nodes at the same time, which take longer.
  EXPECT_NEAR(all_to_all_seconds(c, 8, 1e9), 4 * (10e-6 + 0.125e9 / 10e9), 1e-12);
}

TEST(ClusterTest, TheAlgorithmDependsOnTheBackend) {
  Cluster c = round_cluster();
  EXPECT_EQ(collective_seconds(c, 16, 1e6), ring_seconds(c, 16, 1e6));
  EXPECT_EQ(sum_seconds(c, 16, 1e6), ring_seconds(c, 16, 1e6));
  c.devices_per_node = 1;  // NCCL's condition for trees
  EXPECT_EQ(collective_seconds(c, 16, 1e6), tree_seconds(c, 16, 1e6));
  c.device = "cpu";
  EXPECT_EQ(collective_seconds(c, 16, 1e6), all_to_all_seconds(c, 16, 1e6));
  EXPECT_NEAR(sum_seconds(c, 16, 1e6), all_to_all_seconds(c, 16, 1e6) + 1e6 / 1e12, 1e-15);
  EXPECT_NEAR(bytes_sent(4, 1000), 750, 1e-9);
}

TEST(ClusterTest, AFileIsReadAndItsMistakesAreNamed) {
  const TemporaryDirectory directory;
  const fs::path file = directory / "cluster.yaml";
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = testing::cluster_file;
    text.replace(text.find(from), from.size(), to);
    data::write_text_atomically(file, text);
    return error_of([&] { load_cluster(file); });
  };
  data::write_text_atomically(file, testing::cluster_file);
  const Cluster c = load_cluster(file);
  EXPECT_EQ(c.name, "two machines");
  EXPECT_EQ(c.devices_per_node, 2);
  EXPECT_EQ(c.flops_per_second, 1e11);
  EXPECT_EQ(c.intra_node.latency_seconds, 1e-5);
  EXPECT_EQ(c.inter_node.bytes_per_second, 1e9);
  EXPECT_EQ(c.nodes(4), 2);
  EXPECT_EQ(c.nodes(5), 3);

  const std::string at = file.string();
  EXPECT_EQ(with("utilisation:", "utilization:"),
            at + ":5: utilization: unknown key; the nearest known one is utilisation");
  EXPECT_EQ(with("utilisation: 0.5", "utilisation: 1.5"),
            at + ":5: utilisation: found '1.5', expected a number above 0, at most 1");
  EXPECT_EQ(with("devices_per_node: 2", "devices_per_node: 0"),
            at + ":3: devices_per_node: found '0', expected an integer of at least 1");
  EXPECT_EQ(with("device: cpu", "device: tpu"), at + ":2: device: found 'tpu', expected one of cpu, cuda");
  EXPECT_EQ(with("memory_bytes: 16e9\n", ""),
            at + ": memory_bytes: found nothing, expected a value (it has no default)");
  EXPECT_EQ(with("name: two machines", "model: {preset: qwen3_0.6b}\nname: two machines"),
            at + ":1: model.preset: unknown key; the nearest known one is name");
  EXPECT_NE(error_of([&] { load_cluster(directory / "absent.yaml"); }).find("absent.yaml"), std::string::npos);
}

TEST(ClusterTest, TheFilesInConfigsAreRead) {
  int count = 0;
  for (const auto& entry : fs::directory_iterator(fs::path(testing::source_dir()) / "configs" / "clusters")) {
    EXPECT_NO_THROW(load_cluster(entry.path())) << entry.path();
    ++count;
  }
  EXPECT_GE(count, 2);
}

TEST(ClusterTest, TheExamplesInTheFilesArePlanned) {
  const fs::path root = testing::source_dir();
  // Two comment lines at the top of a description.
  const std::regex example(
      "#   routescope-train (\\S+) (\\S+=\\S+) --plan --world-size ([0-9]+) \\\\\n#     --cluster (\\S+)\n");
  for (const auto& entry : fs::directory_iterator(root / "configs" / "clusters")) {
    const std::string text = data::read_text(entry.path());
    std::smatch found;
    ASSERT_TRUE(std::regex_search(text, found, example)) << entry.path();
    if (load_cluster(entry.path()).device == "cuda" && !kernels::cuda_built()) continue;
    const TrainConfig config = load_config(root / found[1].str(), {found[2]});
    const std::int64_t ranks = std::stoll(found[3]);
    const std::string plan = plan_text(config, {.world_size = ranks, .cluster = root / found[4].str()});
    EXPECT_NE(plan.find(fmt::format("at most      {} ranks", ranks)), std::string::npos) << plan;
  }
}

}  // namespace
}  // namespace routescope::train
