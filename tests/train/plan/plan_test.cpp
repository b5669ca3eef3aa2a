// The plan for many ranks: what collectives take by formula, what of them a step hides, what a rank holds, and what the
// tool prints and refuses.
#include "train/plan/plan.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <map>
#include <regex>

#include "data/base/error.h"
#include "data/base/files.h"
#include "kernels/device.h"
#include "model/pass/parameters.h"
#include "tests/places.h"
#include "tests/train/run/micro_run.h"
#include "train/plan/calibrate.h"
#include "train/plan/cluster.h"
#include "train/plan/forecast.h"
#include "train/run/step.h"

namespace routescope::train {
namespace {

namespace fs = std::filesystem;
using testing::MicroRun;
using testing::TemporaryDirectory;

/// Round numbers, so that expected times can be reckoned by hand.
Cluster round_cluster() {
  return {.name = "round",
          .device = "cuda",
          .devices_per_node = 4,
          .flops_per_second = 1e12,
          .utilisation = 0.5,
          .memory_bytes = 1e12,
          .memory_bytes_per_second = 1e12,
          .intra_node = {1e-6, 100e9},
          .inter_node = {10e-6, 10e9}};
}

std::string error_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

const char* const kClusterFile = R"(name: two machines
device: cpu
devices_per_node: 2
flops_per_second: 1e11
utilisation: 0.5
memory_bytes: 16e9
memory_bytes_per_second: 2e10
intra_node: {latency_seconds: 1e-5, bytes_per_second: 5e9}
inter_node: {latency_seconds: 5e-5, bytes_per_second: 1e9}
)";

// ---- Collectives ----

TEST(ClusterTest, ARingTakesAsManyStepsAsThereAreOtherRanks) {
  const Cluster c = round_cluster();
  EXPECT_EQ(ring_seconds(c, 1, 1e9), 0);
  // One node: 3 steps, three quarters of the bytes at the node's own rate.
  EXPECT_NEAR(ring_seconds(c, 4, 1e9), 3e-6 + 0.75e9 / 100e9, 1e-12);
  // Two nodes: 7 steps of which one is between them; a node's four links carry 40 GB/s together.
  EXPECT_NEAR(ring_seconds(c, 8, 1e9), 6e-6 + 10e-6 + 0.875e9 / 40e9, 1e-12);
  // The slower of both kinds of link sets the pace.
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

TEST(ClusterTest, TheAlgorithmIsTheBackends) {
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

TEST(ClusterTest, AFileIsReadAndItsMistakesNamed) {
  const TemporaryDirectory directory;
  const fs::path file = directory / "cluster.yaml";
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = kClusterFile;
    text.replace(text.find(from), from.size(), to);
    data::write_text_atomically(file, text);
    return error_of([&] { load_cluster(file); });
  };
  data::write_text_atomically(file, kClusterFile);
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

TEST(ClusterTest, TheDescribedOnesLoad) {
  int count = 0;
  for (const auto& entry : fs::directory_iterator(fs::path(testing::source_dir()) / "configs" / "clusters")) {
    EXPECT_NO_THROW(load_cluster(entry.path())) << entry.path();
    ++count;
  }
  EXPECT_GE(count, 2);
}

TEST(ClusterTest, TheirExamplesArePlanned) {
  const fs::path root = testing::source_dir();
  // Two lines of a description's head.
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

// ---- A step ----

/// Ten layers of 1 Mi elements of matrices, an embedding of 2 Mi, a few vectors; sixteen micro-batches.
TrainConfig forecast_config() {
  TrainConfig config;
  config.device = "cuda";
  config.precision = "bf16";
  config.model.vocab_size = 4096;
  config.model.hidden_size = 512;
  config.model.intermediate_size = 512;
  config.model.num_hidden_layers = 10;
  config.model.num_attention_heads = 8;
  config.model.num_key_value_heads = 8;
  config.model.head_dim = 32;
  config.model.max_position_embeddings = 1024;
  config.model.tie_word_embeddings = true;
  config.data.sequence_length = 128;
  config.train.tokens_per_step = 16 * 128;
  config.train.micro_batch = 1;
  config.distributed.bucket_mb = 4;
  return config;
}

const ComputeTimes kTimes{.layer_forward = 1, .layer_backward = 2, .head = 3, .clear = 0, .update = 0};

TEST(ForecastTest, CountsWhatTheModelHas) {
  const TrainConfig config = forecast_config();
  const ParameterCounts counts = count_parameters(config.model);
  EXPECT_EQ(counts.embedding, 4096 * 512);
  EXPECT_EQ(counts.head, 0);
  EXPECT_EQ(counts.layer, 512 * (3 * 256 + 256 + 3 * 512));
  const model::ParameterLayout layout(config.model);
  EXPECT_EQ(layout.matrices_end(), counts.embedding + 10 * counts.layer);
}

TEST(ForecastTest, OneRankSendsNothing) {
  const TrainConfig config = forecast_config();
  const StepForecast f = forecast_step(config, kTimes, round_cluster(), 1);
  EXPECT_EQ(f.bytes(), 0);
  EXPECT_EQ(f.exposed(), 0);
  EXPECT_DOUBLE_EQ(f.step(), 16 * (10 * 3 + 3));
}

TEST(ForecastTest, TheSlowestRankCounts) {
  const TrainConfig config = forecast_config();
  EXPECT_EQ(forecast_step(config, kTimes, round_cluster(), 4).passes, 4);
  EXPECT_EQ(forecast_step(config, kTimes, round_cluster(), 5).passes, 4);  // 16 = 4 + 3 + 3 + 3 + 3
  EXPECT_EQ(forecast_step(config, kTimes, round_cluster(), 6).passes, 3);
  EXPECT_EQ(forecast_step(config, kTimes, round_cluster(), 16).passes, 1);
  for (const int ranks : {3, 5, 6, 7}) {
    std::int64_t most = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      const SequenceRange range = sequences_of_rank(16, 1, {.rank = rank, .size = ranks});
      most = std::max(most, range.end - range.begin);
    }
    EXPECT_EQ(forecast_step(config, kTimes, round_cluster(), ranks).passes, most) << ranks;
  }
}

TEST(ForecastTest, BytesAreThoseOfTheShares) {
  TrainConfig config = forecast_config();
  const model::ParameterLayout layout(config.model, 4);
  const auto matrices = static_cast<double>(layout.matrices_end());
  const auto vectors = static_cast<double>(layout.total() - layout.matrices_end());
  const StepForecast f = forecast_step(config, kTimes, round_cluster(), 4);
  EXPECT_DOUBLE_EQ(f.reduce_scatter_bytes, 0.75 * 4 * matrices);
  EXPECT_DOUBLE_EQ(f.all_gather_bytes, 0.75 * 2 * matrices);
  EXPECT_DOUBLE_EQ(f.vector_bytes, 2 * 0.75 * 4 * vectors);
  config.precision = "f32";
  EXPECT_DOUBLE_EQ(forecast_step(config, kTimes, round_cluster(), 4).all_gather_bytes, 0.75 * 4 * matrices);
  config.precision = "bf16";
  config.distributed.zero = 0;  // gradients are gathered, not parameters
  EXPECT_DOUBLE_EQ(forecast_step(config, kTimes, round_cluster(), 4).all_gather_bytes, 0.75 * 4 * matrices);
}

/// Bytes a second at which one bucket's collective among two ranks of a node takes `seconds`.
Cluster with_bucket_seconds(double seconds, const TrainConfig& config) {
  Cluster c = round_cluster();
  const auto bucket_bytes = static_cast<double>(config.distributed.bucket_mb << 20);
  c.intra_node = {0, bytes_sent(2, bucket_bytes) / seconds};
  return c;
}

TEST(ForecastTest, WhatTheBackwardPassHidesIsNotExposed) {
  // Buckets of 4 MiB are 1 Mi elements: 2 of the embedding, then 10 layers of 1.25 Mi: 14.5 buckets.
  const TrainConfig config = forecast_config();
  // Far faster than the passes: exposed are the embedding's two buckets and the two that the first layer is in, which
  // are complete last.
  const Cluster fast = with_bucket_seconds(0.001, config);
  const StepForecast f = forecast_step(config, kTimes, fast, 2);
  EXPECT_NEAR(f.reduce_scatter, 0.0145, 1e-9);
  EXPECT_NEAR(f.reduce_scatter_exposed, 0.004, 1e-9);
  // Far slower: the first bucket to go (the last half one) is ready after the head and one layer, and from then on the
  // link is never idle.
  const Cluster slow = with_bucket_seconds(100, config);
  const StepForecast g = forecast_step(config, kTimes, slow, 2);
  EXPECT_NEAR(g.reduce_scatter, 1450, 1e-6);
  EXPECT_NEAR(g.reduce_scatter_exposed, (3 + 2) + 1450 - (3 + 20), 1e-6);
}

TEST(ForecastTest, TheForwardPassWaitsForWhatItNeeds) {
  const TrainConfig config = forecast_config();
  // An all-gather moves half the bytes (bf16). Fast: the pass waits for the first four buckets, without which the first
  // layer cannot start, and for none afterwards.
  const StepForecast f = forecast_step(config, kTimes, with_bucket_seconds(0.001, config), 2);
  EXPECT_NEAR(f.all_gather, 0.0145 / 2, 1e-9);
  EXPECT_NEAR(f.all_gather_exposed, 0.002, 1e-9);
  // Slow: the last layer starts when everything is there.
  const StepForecast g = forecast_step(config, kTimes, with_bucket_seconds(100, config), 2);
  EXPECT_NEAR(g.all_gather_exposed, 725 + 1 - 10, 1e-6);
  // Updating hides it as well. With an update as long as the gathers, 50 s a bucket, bucket 13 is there at 750 s, when
  // the pass, which started after the update at 725 s, has waited 17 s for it before layer 8; the last one at 775 s.
  ComputeTimes times = kTimes;
  times.update = 100.0 / (1 << 20);
  const StepForecast h = forecast_step(config, times, with_bucket_seconds(100, config), 2);
  EXPECT_NEAR(h.all_gather_exposed, 775 + 1 - (725 + 10), 1e-6);
}

TEST(ForecastTest, NothingHidesWhatCoresMoveThemselves) {
  const TrainConfig config = forecast_config();
  Cluster c = with_bucket_seconds(0.001, config);
  c.device = "cpu";
  const StepForecast f = forecast_step(config, kTimes, c, 2);
  EXPECT_DOUBLE_EQ(f.reduce_scatter_exposed, f.reduce_scatter);
  EXPECT_DOUBLE_EQ(f.all_gather_exposed, f.all_gather);
  TrainConfig zero0 = config;
  zero0.distributed.zero = 0;
  const StepForecast g = forecast_step(zero0, kTimes, with_bucket_seconds(0.001, config), 2);
  EXPECT_DOUBLE_EQ(g.all_gather_exposed, g.all_gather);
  EXPECT_DOUBLE_EQ(g.all_gather, g.reduce_scatter);
}

TEST(ForecastTest, DescribedTimesAreFlopsOverTheRate) {
  const TrainConfig config = forecast_config();
  Cluster c = round_cluster();
  const ComputeTimes times = described_times(config, c);
  const double per_token = times.micro_batch(10) / 128 * 0.5e12;
  // As throughput.h counts them.
  const double d = 512, layer = d * (3 * 256 + 256 + 3 * 512);
  EXPECT_NEAR(per_token, 6 * (10 * layer + 4096 * d) + 6 * 10 * 256 * 129, 1e-3);
  EXPECT_DOUBLE_EQ(times.clear, 4e-12);
  EXPECT_DOUBLE_EQ(times.update, (8 * 4 + 2) * 1e-12);
}

TEST(ForecastTest, MoreRanksTakeLessTimeAndLoseEfficiencyUpTo4096) {
  TrainConfig config = forecast_config();
  config.train.tokens_per_step = 4096 * 128;
  const Cluster c = round_cluster();
  const ComputeTimes times = described_times(config, c);
  double before = 0, efficiency = 1;
  const double alone = forecast_step(config, times, c, 1).step();
  for (std::int64_t ranks = 1; ranks <= 4096; ranks *= 2) {
    const StepForecast f = forecast_step(config, times, c, ranks);
    EXPECT_EQ(f.passes, 4096 / ranks);
    const double now = alone / (static_cast<double>(ranks) * f.step());
    EXPECT_LE(now, efficiency + 1e-9) << ranks;
    EXPECT_TRUE(std::isfinite(f.step()));
    efficiency = now;
    if (ranks <= 64 && ranks > 1) {
      EXPECT_LT(f.step(), before) << ranks;
    }
    before = f.step();
  }
}

TEST(ForecastTest, WhatGoesOverUnknownLinksIsCountedAndTakesNoTime) {
  TrainConfig config = forecast_config();
  for (const int zero : {0, 1}) {
    config.distributed.zero = zero;
    const StepForecast known = forecast_step(config, kTimes, round_cluster(), 4);
    const StepForecast f = forecast_step(config, kTimes, unknown_cluster(4), 4);
    EXPECT_EQ(f.bytes(), known.bytes());
    EXPECT_EQ(f.passes, 4);
    EXPECT_EQ(f.exposed(), 0);
    EXPECT_EQ(f.step(), known.step() - known.exposed());
  }
}

// ---- What is measured here ----

TEST(CalibrationTest, AHeadTakesAsLongAsItsVocabularyIsLarge) {
  TrainConfig config = forecast_config();
  config.device = "cpu";
  config.precision = "f32";
  config.data.sequence_length = 32;
  const auto head_seconds = [&](std::int64_t vocabulary) {
    config.model.vocab_size = vocabulary;
    const ComputeTimes times = calibrate(config, 0).times;
    EXPECT_GT(times.layer_forward, 0);
    EXPECT_GT(times.layer_backward, 0);
    return times.head;
  };
  // Both have more columns than are timed; four times as much or as little is left to noise.
  const double ratio = head_seconds(1 << 21) / head_seconds(1 << 17);
  EXPECT_GT(ratio, 16.0 / 4);
  EXPECT_LT(ratio, 16.0 * 4);
}

// ---- What a rank holds ----

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
  EXPECT_NEAR(static_cast<double>(alone.at("moments (AdamW)") - shared.at("moments (AdamW)")),
              2.0 * 4 * static_cast<double>(elements) * 7 / 8, 1e4);
  const std::size_t all = total_bytes(memory_parts(config, 1)), share = total_bytes(memory_parts(config, 8));
  // In bf16 the f32 masters go with the moments; a bucket of them comes together for a checkpoint.
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
  EXPECT_NEAR(host(1, 0), 3 * 4 * parameters, 12e6);  // and the matrices of the start
  EXPECT_NEAR(host(4, 0) - host(4, 1), 4 * parameters, 1e6);
  config.checkpoint.async = "off";
  // What sums go through, MPI, the matrices of the start.
  EXPECT_LT(host(4, 1), 48e6);
  EXPECT_NEAR(host(4, 0) - host(4, 1), 4 * parameters, 1e6);  // gathered from shares of the f32 masters
  config.precision = "f32";
  EXPECT_LT(host(4, 0), 48e6);
}

TEST(PlanMemoryTest, TheLargestMicroBatchLeavesEveryRankOne) {
  TrainConfig config = forecast_config();
  config.device = "cpu";
  const auto plenty = std::size_t{1} << 40;
  EXPECT_EQ(largest_micro_batch(config, plenty, 1), 16);
  EXPECT_EQ(largest_micro_batch(config, plenty, 4), 4);
  EXPECT_EQ(largest_micro_batch(config, plenty, 16), 1);
  EXPECT_EQ(largest_micro_batch(config, plenty, 4, plenty), 0);
  EXPECT_EQ(largest_micro_batch(config, 1 << 20), 0);
}

// ---- The tool ----

class PlanTool : public ::testing::Test {
 protected:
  /// The lines of a plan; the test fails unless the tool ends well and leaves no run behind.
  std::string plan(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "--plan");
    const MicroRun::Finished finished = micro_.execute("planned", arguments);
    EXPECT_EQ(finished.status, 0) << finished.err;
    EXPECT_FALSE(fs::exists(micro_.dir("planned")));
    return finished.out;
  }
  std::string cluster_file() {
    data::write_text_atomically(micro_.directory() / "cluster.yaml", kClusterFile);
    return (micro_.directory() / "cluster.yaml").string();
  }
  void expect_refused(const std::vector<std::string>& arguments, int status, const std::string& words) {
    const MicroRun::Finished finished = micro_.execute("refused", arguments);
    EXPECT_EQ(finished.status, status);
    EXPECT_NE(finished.err.find(words), std::string::npos) << finished.err;
    EXPECT_EQ(std::ranges::count(finished.err, '\n'), 1) << finished.err;
  }
  MicroRun micro_;
};

TEST_F(PlanTool, ForADescribedClusterNothingIsMeasured) {
  const std::vector<std::string> arguments{"--world-size", "3", "--cluster", cluster_file(), "train.micro_batch=1",
                                           "precision=f32"};
  const std::string text = plan(arguments);
  for (const char* words :
       {"3 on 2 nodes of two machines", "1 or 2 on each of 3 ranks", "moments", "communication staging",
        "checkpoint being written", "total of every other rank", "gradients, reduce-scatter (f32)",
        "parameters, all-gather (f32)", "host values", "not hidden", "efficiency", "at most      4 ranks"}) {
    EXPECT_NE(text.find(words), std::string::npos) << words << "\n" << text;
  }
  EXPECT_EQ(text.find("measured now"), std::string::npos) << text;
  // A row each for 1, 2 and 3 ranks.
  EXPECT_TRUE(std::regex_search(text, std::regex("\n +1 +1 +4 .*100.0%\n +2 +1 +2 .*%\n +3 +2 +2 .*%\n"))) << text;
}

TEST_F(PlanTool, WithoutAClusterThisMachineIsMeasured) {
  const std::string text = plan({"--world-size", "2"});
  for (const char* words : {"this machine", "measured now", "step time", "program, libraries"})
    EXPECT_NE(text.find(words), std::string::npos) << words << "\n" << text;
}

TEST_F(PlanTool, RefusesInOneLine) {
  expect_refused({"--plan", "--world-size", "3"}, 2, "--world-size: found 3, expected 1 to 2: a step of 4 sequences");
  expect_refused({"--plan", "--world-size", "0"}, 2, "--world-size: found 0, expected 1 to 2");
  expect_refused({"--world-size", "2"}, 2, "--world-size requires --plan");
  expect_refused({"--plan", "--cluster", "absent.yaml"}, 1, "absent.yaml");
  std::string text = kClusterFile;
  text.replace(text.find("cpu"), 3, "cuda");
  data::write_text_atomically(micro_.directory() / "cuda.yaml", text);
  expect_refused({"--plan", "--cluster", (micro_.directory() / "cuda.yaml").string()}, 1,
                 "cuda.yaml: device: found cuda, expected cpu as in the configuration");
  // No card is needed, but the backend: it knows what its kernels take.
  const std::vector<std::string> on_cuda{"--cluster", (micro_.directory() / "cuda.yaml").string(), "device=auto"};
  if (kernels::cuda_built()) {
    EXPECT_NE(plan(on_cuda).find("recompute    none"), std::string::npos);
    // Without a description what every rank sends is known all the same.
    const std::string undescribed = plan({"device=cuda", "--world-size", "2"});
    EXPECT_TRUE(std::regex_search(undescribed, std::regex("gradients, reduce-scatter \\(f32\\) +[0-9.]*[1-9]")))
        << undescribed;
    EXPECT_TRUE(std::regex_search(undescribed, std::regex("step time    unknown|not known without --cluster")))
        << undescribed;
  } else {
    expect_refused({"--plan", on_cuda[0], on_cuda[1], on_cuda[2]}, 1, "this build has no CUDA backend");
  }
}

/// The most that a process ever had resident, in bytes, asked for until it ends.
std::size_t peak_bytes(pid_t process) {
  std::size_t peak = 0;
  const std::string file = fmt::format("/proc/{}/status", process);
  for (bool alive = true; alive;) {
    alive = false;
    std::ifstream status(file);
    for (std::string line; std::getline(status, line);) {
      if (!line.starts_with("VmHWM:")) continue;
      peak = std::max<std::size_t>(peak, 1024 * std::stoull(line.substr(6)));
      alive = true;  // what has ended has no memory
    }
    ::usleep(2000);
  }
  return peak;
}

TEST_F(PlanTool, ARunTakesTheMemoryThatIsPlanned) {
  // 13.2 M parameters: large against what no part accounts for.
  const std::vector<std::string> large{"model.hidden_size=256", "model.intermediate_size=4096", "train.steps=1",
                                       "valid.every=0", "train.schedule.warmup_steps=0"};
  const std::string text = plan(large);
  std::smatch found;
  ASSERT_TRUE(std::regex_search(text, found, std::regex("\n  total +([0-9.]+)\n"))) << text;
  const double planned = std::stod(found[1]) * (1 << 20);
  const pid_t child = micro_.start("measured", large);
  const auto peak = static_cast<double>(peak_bytes(child));
  ASSERT_EQ(micro_.wait(child, "measured").status, 0);
  RecordProperty("planned_mib", static_cast<int>(planned / (1 << 20)));
  RecordProperty("peak_mib", static_cast<int>(peak / (1 << 20)));
  EXPECT_NEAR(planned / peak, 1, 0.05) << text;
}

}  // namespace
}  // namespace routescope::train
