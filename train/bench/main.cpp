// routescope-bench: how fast a training step is on this machine, and where its time goes. On the CPU against oneDNN's
// own rate (bench_cpu), on a CUDA device against its copy bandwidth and its rate on matrix products (bench_card).
#include <CLI/CLI.hpp>
#include <algorithm>
#include <optional>

#include "data/base/build.h"
#include "data/base/command_line.h"
#include "data/base/error.h"
#include "kernels/comm/launch.h"
#include "kernels/device.h"
#include "train/bench/bench_card.h"
#include "train/bench/bench_checkpoint.h"
#include "train/bench/bench_cpu.h"
#include "train/plan/throughput.h"

namespace {

using namespace routescope;
using namespace routescope::train;

constexpr int kNoDevice = 3;

struct Extent {
  const char* option;
  std::int64_t model::ModelConfig::*member;
};
constexpr Extent kExtents[] = {
    {"--vocab-size", &model::ModelConfig::vocab_size},
    {"--hidden-size", &model::ModelConfig::hidden_size},
    {"--layers", &model::ModelConfig::num_hidden_layers},
    {"--heads", &model::ModelConfig::num_attention_heads},
    {"--kv-heads", &model::ModelConfig::num_key_value_heads},
    {"--head-dim", &model::ModelConfig::head_dim},
    {"--intermediate-size", &model::ModelConfig::intermediate_size},
    {"--blocks", &model::ModelConfig::num_blocks},
};

/// configs/qwen3_100m_block.yaml for the CPU, configs/qwen3_0.6b_block.yaml for a card.
model::ModelConfig default_model(bool card) {
  model::ModelConfig model = model::ModelConfig::preset("qwen3_0.6b");
  model.residual = model::Residual::block_attn_res;
  model.num_blocks = 8;
  if (card) return model;
  model.hidden_size = 512;
  model.num_hidden_layers = 12;
  model.num_attention_heads = 8;
  model.num_key_value_heads = 4;
  model.head_dim = 64;
  model.intermediate_size = 1536;
  model.num_blocks = 4;
  return model;
}

int bench(int argc, char** argv) {
  CLI::App app(
      "Measures training steps and where their time goes. By default on the model of configs/qwen3_100m_block.yaml, 8 "
      "x 512 "
      "tokens; with --device cuda on that of configs/qwen3_0.6b_block.yaml, 16 x 2048 tokens.");
  app.set_version_flag("--version", data::routescope_version());
  app.footer(
      "Exit status: 0 measured; 1 an error, or something could not be measured; 2 wrong usage; 3 no CUDA device.");
  std::string device = "cpu";
  app.add_option("--device", device)->check(CLI::IsMember({"cpu", "cuda"}))->capture_default_str();
  model::ModelConfig given;
  for (const Extent& extent : kExtents) app.add_option(extent.option, given.*extent.member)->check(CLI::PositiveNumber);
  std::string source = model::to_string(model::AttnResSource::block_sum);
  app.add_option("--source", source, "block_sum or cumulative")->capture_default_str();
  std::optional<std::int64_t> sequence_length, batch;
  app.add_option("--sequence-length", sequence_length)->check(CLI::PositiveNumber);
  app.add_option("--batch", batch, "sequences in a pass")->check(CLI::PositiveNumber);
  std::int64_t rounds = 3;
  app.add_option("--rounds", rounds, "of training steps")->check(CLI::PositiveNumber)->capture_default_str();

  CpuBench cpu;
  app.add_option("--precision", cpu.precision, "on the CPU; on a card it is bf16")
      ->check(CLI::IsMember({"f32", "bf16", "both"}))
      ->capture_default_str();
  std::string checkpoints;
  app.add_option("--checkpoint", checkpoints,
                 "on the CPU, also under mpirun: only what a checkpoint takes from training; in this new directory");

  CardBench card;
  app.add_option("--accumulate", card.accumulate, "on a card: passes in a training step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--parts", card.parts, "on a card: what to measure")
      ->check(CLI::IsMember(CardBench::all_parts()))
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--reads", card.reads, "on a card: how the reads of training steps go, each against standard")
      ->check(CLI::IsMember({"fused", "two_phase", "auto"}))
      ->delimiter(',')
      ->capture_default_str();
  app.add_flag("--graph", card.graph, "on a card: record a training pass once and replay it");
  app.add_flag("--tune-products", card.tune_products, "on a card: time the candidates for each matrix product");
  app.add_option("--json", card.json, "on a card: a file for the results, rewritten after each part");
  if (const auto done = data::parse_command_line(app, argc, argv)) return *done;

  const bool on_card = device == "cuda";
  model::ModelConfig model = default_model(on_card);
  for (const Extent& extent : kExtents)
    if (app.count(extent.option) > 0) model.*extent.member = given.*extent.member;
  model.source = model::attn_res_source_from_string(source);
  model.validate("command line");

  if (on_card) {
    if (!kernels::cuda_available()) {
      fmt::print(stderr, "routescope-bench: {}\n",
                 kernels::cuda_built() ? "no CUDA device" : "this build has no CUDA backend");
      return kNoDevice;
    }
    card.model = model;
    card.sequence_length = sequence_length.value_or(2048);
    card.batch = batch.value_or(16);
    card.rounds = rounds;
    return bench_card(card) == 0 ? 0 : 1;
  }
  if (!card.json.empty()) throw data::UsageError("--json: needs --device cuda");
  cpu.model = model;
  cpu.sequence_length = sequence_length.value_or(512);
  cpu.batch = batch.value_or(8);
  cpu.rounds = rounds;
  if (!checkpoints.empty()) {
    bench_checkpoint(cpu, checkpoints, *kernels::start_communicator(kernels::Device::cpu));
    return 0;
  }
  bench_cpu(cpu);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return data::run_tool("routescope-bench", [&] { return bench(argc, argv); });
}
