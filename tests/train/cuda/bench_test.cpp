// routescope-bench on a card: every part runs at a micro size, and its counts of arithmetic agree with the model's.
#include "train/bench/card/bench.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "train/bench/card/rates.h"
#include "train/bench/step/products.h"
#include "train/plan/throughput.h"

namespace {

using namespace routescope;
namespace fs = std::filesystem;

routescope::model::ModelConfig micro_model() {
  routescope::model::ModelConfig config;
  config.residual = routescope::model::Residual::block_attn_res;
  config.vocab_size = 61;
  config.hidden_size = 32;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 2;
  config.num_key_value_heads = 1;
  config.head_dim = 64;
  config.intermediate_size = 48;
  config.num_blocks = 2;
  return config;
}

routescope::train::CardBench micro_bench() {
  routescope::train::CardBench bench;
  bench.model = micro_model();
  bench.sequence_length = 8;
  bench.batch = 2;
  bench.accumulate = 2;
  bench.rounds = 2;
  bench.reads = {"fused", "two_phase"};
  bench.copy_bytes = 4096;
  bench.timing = {.repetitions = 1, .sample_seconds = 0, .rotated_bytes = 1};
  return bench;
}

/// A file that is removed at the end.
struct TempFile {
  fs::path path = fs::temp_directory_path() / ("routescope-bench-test-" + std::to_string(::getpid()) + ".json");
  ~TempFile() { fs::remove(path); }
};

TEST(BenchCard, MeasuresEveryPartAndWritesIt) {
  const TempFile file;
  routescope::train::CardBench bench = micro_bench();
  bench.json = file.path.string();
  const int failed = routescope::train::bench_card(bench);

  std::ifstream in(file.path);
  const nlohmann::json json = nlohmann::json::parse(in);
  EXPECT_GT(json["copy_bytes_per_second"], 0.0);
  EXPECT_GT(json["product_flops_per_second"], 0.0);
  std::set<std::string> names;
  for (const nlohmann::json& row : json["traffic"]) {
    SCOPED_TRACE(row["name"].get<std::string>());
    EXPECT_TRUE(names.insert(row["name"]).second) << "twice";
    EXPECT_GT(row["bytes"], 0.0);
    EXPECT_GT(row["seconds"], 0.0);
    EXPECT_FALSE(row.contains("error"));
  }
  for (const char* name : {"attn_res_forward, n = 8", "attn_res_merge, n = 1", "adamw", "cross_entropy with gradient"})
    EXPECT_TRUE(names.contains(name)) << name;
  EXPECT_EQ(json["groups"].size(), 3U);
  int refused = 0;  // cuDNN may refuse so small a shape
  for (const char* part : {"attention", "products"}) {
    for (const nlohmann::json& row : json[part]) {
      if (!row.contains("error")) continue;
      EXPECT_TRUE(row["name"].get<std::string>().ends_with("cudnn")) << row.dump();
      ++refused;
    }
  }
  EXPECT_EQ(failed, refused);
  ASSERT_EQ(json["steps"].size(), 2U);
  for (const nlohmann::json& row : json["steps"]) {
    ASSERT_FALSE(row.contains("error")) << row.dump();
    EXPECT_GT(row["routed_over_standard"], 0.0);
    EXPECT_GT(row["routed_speed"]["bytes"], row["standard_speed"]["bytes"]);
  }
}

TEST(BenchCard, MeasuresOnlyTheGivenParts) {
  const TempFile file;
  routescope::train::CardBench bench = micro_bench();
  bench.parts = {"products"};
  bench.json = file.path.string();
  EXPECT_EQ(routescope::train::bench_card(bench), 0);
  std::ifstream in(file.path);
  const nlohmann::json json = nlohmann::json::parse(in);
  EXPECT_TRUE(json.contains("products"));
  for (const char* part : {"traffic", "attention", "steps"}) EXPECT_FALSE(json.contains(part)) << part;
}

TEST(BenchCard, CountsTheArithmeticOfAStep) {
  const routescope::train::CardBench bench = micro_bench();
  const routescope::train::BenchShape shape{
      .model = bench.model, .batch = bench.batch, .sequence_length = bench.sequence_length, .head_rows = 5};
  double products = 0;
  for (const routescope::train::Product& p :
       routescope::train::products_of_step(shape.model, shape.tokens(), shape.head_rows))
    products += static_cast<double>(p.count) * p.flops();
  double attention = 0;
  for (const routescope::train::Rate& rate :
       routescope::train::attention_rates(shape, bench.timing, [](const routescope::train::Rate&) {})) {
    if (!rate.name.ends_with("builtin")) continue;
    // The model's FLOPs count four backward products. The fifth is the repetition of q k^T.
    const double model_share = rate.name.starts_with("attention_backward") ? 4.0 / 5.0 : 1.0;
    attention += static_cast<double>(rate.count) * rate.flops * model_share;
  }
  const double expected =
      routescope::train::flops_per_token(shape.model, shape.sequence_length) * static_cast<double>(shape.tokens());
  EXPECT_NEAR((products + attention) / expected, 1.0, 1e-12);
}

TEST(BenchCard, ReportsAFailureAndContinues) {
  const routescope::train::CardBench bench = micro_bench();
  routescope::train::BenchShape shape{
      .model = bench.model, .batch = bench.batch, .sequence_length = bench.sequence_length, .head_rows = 5};
  shape.model.num_key_value_heads = 3;  // does not divide the heads
  int reports = 0;
  const std::vector<routescope::train::Rate> rates =
      routescope::train::attention_rates(shape, bench.timing, [&](const routescope::train::Rate&) { ++reports; });
  EXPECT_EQ(reports, static_cast<int>(rates.size()));
  EXPECT_GE(rates.size(), 2U);
  for (const routescope::train::Rate& rate : rates) EXPECT_FALSE(rate.error.empty()) << rate.name;
  EXPECT_EQ(routescope::train::combined_rate(rates), 0.0);
}

}  // namespace
