// routescope-bench: the speed of a training step on this machine, and the operations that its time goes to. On the CPU
// against oneDNN's own rate (cpu.h), on a CUDA device against copy bandwidth and matrix rate (card/bench.h).
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <optional>

#include "data/base/build.h"
#include "data/base/command_line.h"
#include "data/base/error.h"
#include "kernels/comm/launch.h"
#include "kernels/cpu/threads.h"
#include "kernels/device.h"
#include "train/bench/card/bench.h"
#include "train/bench/checkpoint.h"
#include "train/bench/cpu.h"

namespace {

using namespace routescope;
using namespace routescope::train;

constexpr int kNoDevice = 3;
constexpr std::int64_t kMostExtent = 1 << 30;

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

struct Arguments {
  std::string device = "cpu";
  model::ModelConfig model;  // the extents that were given
  std::string source = model::to_string(model::AttnResSource::block_sum);
  std::optional<std::int64_t> sequence_length, batch;
  std::int64_t rounds = 3;
  CpuBench cpu;
  std::string checkpoint_dir;
  CardBench card;
};

void add_options(CLI::App& app, Arguments& a) {
  app.add_option("--device", a.device)->check(CLI::IsMember({"cpu", "cuda"}))->capture_default_str();
  for (const Extent& extent : kExtents)
    data::add_number(app, extent.option, a.model.*extent.member, "", 1, kMostExtent)->default_str("");
  app.add_option("--source", a.source, "block_sum or cumulative")->capture_default_str();
  data::add_number(app, "--sequence-length", a.sequence_length, "", 1, kMostExtent);
  data::add_number(app, "--batch", a.batch, "sequences in a pass", 1, kMostExtent);
  data::add_number(app, "--rounds", a.rounds, "of training steps", 1, kMostExtent);

  app.add_option("--precision", a.cpu.precision, "on the CPU; on a card it is bf16")
      ->check(CLI::IsMember({"f32", "bf16", "both"}))
      ->capture_default_str();
  app.add_option(
      "--checkpoint", a.checkpoint_dir,
      "on the CPU, also under mpirun: measure only the time that training loses to a checkpoint, in this new "
      "directory");

  data::add_number(app, "--accumulate", a.card.accumulate, "on a card: passes in a training step", 1, kMostExtent);
  app.add_option("--parts", a.card.parts, "on a card: what to measure")
      ->check(CLI::IsMember(CardBench::all_parts()))
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--reads", a.card.reads, "on a card: kernels.reads of the routed training steps")
      ->check(CLI::IsMember({"fused", "two_phase", "auto"}))
      ->delimiter(',')
      ->capture_default_str();
  app.add_flag("--graph", a.card.graph, "on a card: record a training pass once and replay it");
  app.add_flag("--tune-products", a.card.tune_products, "on a card: time the candidates for each matrix product");
  app.add_option("--json", a.card.json, "on a card: a file for the results, rewritten after each part");
}

int run_on_card(CardBench card, const Arguments& a, const model::ModelConfig& model) {
  if (!kernels::cuda_available()) {
    // fmt::print would throw where standard error is full, and the status would be another.
    std::fputs(kernels::cuda_built() ? "routescope-bench: no CUDA device\n"
                                     : "routescope-bench: this build has no CUDA backend\n",
               stderr);
    return kNoDevice;
  }
  card.model = model;
  card.sequence_length = a.sequence_length.value_or(2048);
  card.batch = a.batch.value_or(16);
  card.rounds = a.rounds;
  return bench_card(card) == 0 ? 0 : 1;
}

int run_on_cpu(CpuBench cpu, const Arguments& a, const model::ModelConfig& model) {
  if (!a.card.json.empty()) throw data::UsageError("--json: needs --device cuda");
  cpu.model = model;
  cpu.sequence_length = a.sequence_length.value_or(512);
  cpu.batch = a.batch.value_or(8);
  cpu.rounds = a.rounds;
  if (!a.checkpoint_dir.empty()) {
    bench_checkpoint(cpu, a.checkpoint_dir, *kernels::start_communicator(kernels::Device::cpu));
  } else {
    bench_cpu(cpu);
  }
  return 0;
}

int bench(int argc, char** argv) {
  CLI::App app(
      "Measures training steps and the operations that their time goes to. By default on the model of "
      "configs/qwen3_100m_block.yaml with 8 x 512 tokens; with --device cuda on that of configs/qwen3_0.6b_block.yaml "
      "with 16 x 2048 tokens.");
  app.set_version_flag("--version", data::routescope_version());
  app.footer(
      "Exit status: 0 measured; 1 an error, or something could not be measured; 2 wrong usage; 3 no CUDA device.");
  Arguments arguments;
  add_options(app, arguments);
  if (const auto done = data::parse_command_line(app, argc, argv)) return *done;

  const bool on_card = arguments.device == "cuda";
  model::ModelConfig model = default_model(on_card);
  for (const Extent& extent : kExtents)
    if (app.count(extent.option) > 0) model.*extent.member = arguments.model.*extent.member;
  model.source = model::attn_res_source_from_string(arguments.source);
  model.validate("command line");
  return on_card ? run_on_card(arguments.card, arguments, model) : run_on_cpu(arguments.cpu, arguments, model);
}

}  // namespace

int main(int argc, char** argv) {
  kernels::settle_threads(argv);
  return data::run_tool("routescope-bench", [&] { return bench(argc, argv); });
}
