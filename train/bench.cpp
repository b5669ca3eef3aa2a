// routescope-bench: a training step's speed on this machine as a share of oneDNN's own matrix rate on the same shapes,
// what AttnRes adds to a standard model, memory, and where the time goes. Everything is measured in one run: rounds of
// (oneDNN, standard, AttnRes) so that a slow spell of the machine meets all three, and medians over the rounds.
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <random>

#include "data/command_line.h"
#include "data/error.h"
#include "data/shard.h"
#include "model/activations.h"
#include "train/bench_operations.h"
#include "train/bench_products.h"
#include "train/optimizer.h"
#include "train/step.h"
#include "train/throughput.h"

namespace {

using namespace routescope;
namespace fs = std::filesystem;

struct Arguments {
  ModelConfig model;
  std::int64_t sequence_length = 512, batch = 8, rounds = 3;
  std::string precision = "both";
};

double median(std::vector<double> values) {
  std::ranges::sort(values);
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

/// A stream of random tokens. Its file is gone as soon as it is mapped: an interrupted benchmark leaves nothing behind.
TokenStream random_stream(std::int64_t vocab_size, std::int64_t tokens) {
  const fs::path file = fs::temp_directory_path() / fmt::format("routescope-bench-{}.bin", ::getpid());
  std::mt19937_64 random(1);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens));
  for (std::int32_t& id : ids) id = static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(vocab_size));
  ShardWriter writer(file, vocab_size);
  writer.append(ids);
  writer.finish();
  TokenStream stream({file.string()}, vocab_size);
  fs::remove(file);
  return stream;
}

/// A model that can be stepped and timed.
class Subject {
 public:
  Subject(const ModelConfig& config, DType operands, std::int64_t batch, std::int64_t seq_len)
      : model_(config, {.operands = operands}),
        optimizer_(model_, {}),
        gradients_(DType::f32, Device::cpu, {model_.layout().total()}),
        pass_(model_, batch, seq_len, Pass::Kind::train) {
    model_.initialize(1);
  }
  double step_seconds(const Batches& batches) {
    const auto begin = std::chrono::steady_clock::now();
    ++step_;
    train_step(model_, optimizer_, gradients_.tensor, pass_, batches, step_, 1e-4, 1.0);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }
  const Model& model() const { return model_; }
  /// Parameters, operands, gradients, moments and everything the pass keeps.
  double mebibytes() const {
    const auto parameters = static_cast<std::size_t>(model_.layout().total());
    std::size_t bytes =
        parameters * (4 * sizeof(float) + (model_.options().operands == DType::bf16 ? sizeof(bf16) : 0));
    for (const Arena::Part& part : pass_.memory()) bytes += part.bytes;
    return static_cast<double>(bytes) / (1 << 20);
  }

 private:
  Model model_;
  AdamW optimizer_;
  OwnedTensor gradients_;
  Pass pass_;
  std::int64_t step_ = 0;
};

struct Result {
  double onednn_rate = 0;  // FLOP/s over the step's products, weighted by how often a step does them
  double standard_seconds = 0, routed_seconds = 0;
  double routed_over_standard = 0;  // ratio of medians
  double standard_mebibytes = 0, routed_mebibytes = 0;
  std::vector<OperationTime> operations;  // of the routed model
};

Result measure(const Arguments& arguments, DType operands, const Batches& batches) {
  ModelConfig standard_config = arguments.model;
  standard_config.residual = Residual::standard;
  Subject standard(standard_config, operands, arguments.batch, arguments.sequence_length);
  Subject routed(arguments.model, operands, arguments.batch, arguments.sequence_length);

  Arena planner(Device::cpu);
  Activations activations;
  const ModelConfig& config = arguments.model;
  activations.take(planner, routed.model(),
                   {arguments.batch, arguments.sequence_length, config.num_attention_heads, config.num_key_value_heads,
                    config.head_dim},
                   true);
  const std::vector<Product> products =
      products_of_step(config, arguments.batch * arguments.sequence_length, activations.head_rows);

  standard.step_seconds(batches);  // first touch of memory, and oneDNN's code generation
  routed.step_seconds(batches);
  std::vector<double> product_seconds, standard_seconds, routed_seconds;
  double flops = 0;
  for (const Product& product : products) flops += static_cast<double>(product.count) * product.flops();
  for (std::int64_t round = 0; round < arguments.rounds; ++round) {
    double seconds = 0;
    for (const Product& product : products) {
      seconds += static_cast<double>(product.count) * onednn_seconds(product, operands);
    }
    product_seconds.push_back(seconds);
    for (int twice = 0; twice < 2; ++twice) {
      standard_seconds.push_back(standard.step_seconds(batches));
      routed_seconds.push_back(routed.step_seconds(batches));
    }
  }
  Result result;
  result.onednn_rate = flops / median(product_seconds);
  result.standard_seconds = median(standard_seconds);
  result.routed_seconds = median(routed_seconds);
  result.routed_over_standard = result.routed_seconds / result.standard_seconds;
  result.standard_mebibytes = standard.mebibytes();
  result.routed_mebibytes = routed.mebibytes();
  result.operations =
      time_operations(routed.model(), arguments.batch, arguments.sequence_length, activations.head_rows);
  return result;
}

void print_table(const Arguments& arguments, const std::vector<std::pair<std::string, Result>>& results) {
  const auto tokens = static_cast<double>(arguments.batch * arguments.sequence_length);
  const double flops = tokens * flops_per_token(arguments.model, arguments.sequence_length);
  const auto row = [&](const std::string& name, auto value) {
    fmt::print("{:<44}", name);
    for (const auto& [precision, result] : results) fmt::print("{:>14}", value(result));
    fmt::print("\n");
  };
  const std::string routed = to_string(arguments.model.residual);
  fmt::print("{:<44}", "");
  for (const auto& [precision, result] : results) fmt::print("{:>14}", precision);
  fmt::print("\n");
  row("oneDNN's own rate on the products, GFLOP/s",
      [](const Result& r) { return fmt::format("{:.0f}", r.onednn_rate / 1e9); });
  row("step, standard, s", [](const Result& r) { return fmt::format("{:.3f}", r.standard_seconds); });
  row("step, " + routed + ", s", [](const Result& r) { return fmt::format("{:.3f}", r.routed_seconds); });
  row(routed + " over standard",
      [](const Result& r) { return fmt::format("{:+.1f} %", 100 * (r.routed_over_standard - 1)); });
  row("tokens/s, " + routed, [&](const Result& r) { return fmt::format("{:.0f}", tokens / r.routed_seconds); });
  row("share of oneDNN's rate, standard",
      [&](const Result& r) { return fmt::format("{:.1f} %", 100 * flops / r.standard_seconds / r.onednn_rate); });
  row("share of oneDNN's rate, " + routed,
      [&](const Result& r) { return fmt::format("{:.1f} %", 100 * flops / r.routed_seconds / r.onednn_rate); });
  row("memory, standard, MiB", [](const Result& r) { return fmt::format("{:.0f}", r.standard_mebibytes); });
  row("memory, " + routed + ", MiB", [](const Result& r) { return fmt::format("{:.0f}", r.routed_mebibytes); });
  fmt::print("where a step of {} goes, ms (operations alone, on its shapes)\n", routed);
  for (std::size_t i = 0; i < results.front().second.operations.size(); ++i) {
    row("  " + results.front().second.operations[i].group, [&](const Result& r) {
      const double seconds = r.operations[i].seconds;
      return fmt::format("{:.0f} {:>3.0f} %", 1e3 * seconds, 100 * seconds / r.routed_seconds);
    });
  }
  row("  in none of these", [](const Result& r) {
    double rest = r.routed_seconds;
    for (const OperationTime& operation : r.operations) rest -= operation.seconds;
    return fmt::format("{:.0f} {:>3.0f} %", 1e3 * rest, 100 * rest / r.routed_seconds);
  });
  if (results.size() == 2) {
    const Result &f32 = results[0].second, &bf16_result = results[1].second;
    fmt::print("bf16 over f32: step {:.2f}x, products by oneDNN {:.2f}x, products here {:.2f}x\n",
               f32.routed_seconds / bf16_result.routed_seconds, bf16_result.onednn_rate / f32.onednn_rate,
               f32.operations[0].seconds / bf16_result.operations[0].seconds);
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  fmt::print("peak resident memory of this process (both models at once): {:.0f} MiB\n",
             static_cast<double>(usage.ru_maxrss) / 1024);
}

int bench(int argc, char** argv) {
  Arguments arguments;
  ModelConfig& model = arguments.model;
  model.residual = Residual::block_attn_res;
  model.hidden_size = 512;
  model.num_hidden_layers = 12;
  model.num_attention_heads = 8;
  model.num_key_value_heads = 4;
  model.head_dim = 64;
  model.intermediate_size = 1536;
  model.num_blocks = 4;
  CLI::App app("Measures training steps; by default on the model of configs/qwen3_100m_block.yaml, 512 tokens x 8.");
  app.set_version_flag("--version", routescope_version());
  app.add_option("--vocab-size", model.vocab_size)->capture_default_str();
  app.add_option("--hidden-size", model.hidden_size)->capture_default_str();
  app.add_option("--layers", model.num_hidden_layers)->capture_default_str();
  app.add_option("--heads", model.num_attention_heads)->capture_default_str();
  app.add_option("--kv-heads", model.num_key_value_heads)->capture_default_str();
  app.add_option("--head-dim", model.head_dim)->capture_default_str();
  app.add_option("--intermediate-size", model.intermediate_size)->capture_default_str();
  app.add_option("--blocks", model.num_blocks)->capture_default_str();
  std::string source = to_string(model.source);
  app.add_option("--source", source, "block_sum or cumulative")->capture_default_str();
  app.add_option("--sequence-length", arguments.sequence_length)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--batch", arguments.batch, "sequences in a step")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--rounds", arguments.rounds)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--precision", arguments.precision)
      ->check(CLI::IsMember({"f32", "bf16", "both"}))
      ->capture_default_str();
  if (const auto done = parse_command_line(app, argc, argv)) return *done;
  model.source = attn_res_source_from_string(source);
  model.validate("command line");

  fmt::print(
      "model: hidden size {}, {} layers in {} blocks, {} heads of {} ({} kv), intermediate {}, vocabulary {}; step: {} "
      "x {} tokens\n",
      model.hidden_size, model.num_hidden_layers, model.num_blocks, model.num_attention_heads, model.head_dim,
      model.num_key_value_heads, model.intermediate_size, model.vocab_size, arguments.batch, arguments.sequence_length);
  fmt::print("arithmetic: {:.4g} FLOP a token (train/README.md)\n", flops_per_token(model, arguments.sequence_length));
  std::fflush(stdout);
  const TokenStream stream = random_stream(model.vocab_size, 8 * arguments.batch * arguments.sequence_length + 1);
  const Batches batches(stream, arguments.sequence_length, arguments.batch, 1);
  std::vector<std::pair<std::string, Result>> results;
  if (arguments.precision != "bf16") results.emplace_back("f32", measure(arguments, DType::f32, batches));
  if (arguments.precision != "f32") results.emplace_back("bf16", measure(arguments, DType::bf16, batches));
  print_table(arguments, results);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return run_tool("routescope-bench", [&] { return bench(argc, argv); });
}
