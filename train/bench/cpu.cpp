#include "train/bench/cpu.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include "model/pass/activations.h"
#include "train/bench/operations.h"
#include "train/bench/step/products.h"
#include "train/bench/step/subject.h"
#include "train/plan/throughput.h"

namespace routescope::train {

namespace {

double mebibytes(std::size_t bytes) {
  return static_cast<double>(bytes) / (1 << 20);
}

struct Result {
  double onednn_rate = 0;  // FLOP/s over the step's products, weighted by how often a step does them
  double standard_seconds = 0, routed_seconds = 0;
  double routed_over_standard = 0;  // ratio of medians
  double standard_mebibytes = 0, routed_mebibytes = 0;
  std::vector<OperationTime> operations;  // of the routed model
};

Result measure(const CpuBench& arguments, kernels::DType operands, const data::Batches& batches) {
  model::ModelConfig standard_config = arguments.model;
  standard_config.residual = model::Residual::standard;
  const model::ModelOptions options{.operands = operands};
  Subject standard(standard_config, options, arguments.batch, arguments.sequence_length);
  Subject routed(arguments.model, options, arguments.batch, arguments.sequence_length);

  kernels::Arena planner(kernels::Device::cpu);
  model::Activations activations;
  const model::ModelConfig& config = arguments.model;
  activations.take(planner, config, routed.model().plan(), options,
                   {arguments.batch, arguments.sequence_length, config.num_attention_heads, config.num_key_value_heads,
                    config.head_dim},
                   true, {});
  const std::vector<Product> products =
      products_of_step(config, arguments.batch * arguments.sequence_length, activations.head_rows);

  standard.step_seconds(batches);  // the first step touches memory, and oneDNN generates code
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
  const auto planned_mebibytes = [&](const model::ModelConfig& model) {
    return mebibytes(training_bytes(model, options, arguments.batch, arguments.sequence_length, {}));
  };
  result.standard_mebibytes = planned_mebibytes(standard_config);
  result.routed_mebibytes = planned_mebibytes(config);
  result.operations =
      time_operations(routed.model(), arguments.batch, arguments.sequence_length, activations.head_rows);
  return result;
}

void print_table(const CpuBench& arguments, const std::vector<std::pair<std::string, Result>>& results) {
  const auto tokens = static_cast<double>(arguments.batch * arguments.sequence_length);
  const double flops = tokens * flops_per_token(arguments.model, arguments.sequence_length);
  const auto row = [&](const std::string& name, auto value) {
    fmt::print("{:<44}", name);
    for (const auto& [precision, result] : results) fmt::print("{:>14}", value(result));
    fmt::print("\n");
  };
  const std::string routed = model::to_string(arguments.model.residual);
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

}  // namespace

void bench_cpu(const CpuBench& arguments) {
  const model::ModelConfig& model = arguments.model;
  fmt::print(
      "model: hidden size {}, {} layers in {} blocks, {} heads of {} ({} kv), intermediate {}, vocabulary {}; step: {} "
      "x {} tokens\n",
      model.hidden_size, model.num_hidden_layers, model.num_blocks, model.num_attention_heads, model.head_dim,
      model.num_key_value_heads, model.intermediate_size, model.vocab_size, arguments.batch, arguments.sequence_length);
  fmt::print("arithmetic: {:.4g} FLOP a token (train/bench/README.md)\n",
             flops_per_token(model, arguments.sequence_length));
  std::fflush(stdout);
  const data::TokenStream stream =
      random_stream(arguments.model.vocab_size, 8 * arguments.batch * arguments.sequence_length + 1);
  const data::Batches batches(stream, arguments.sequence_length, arguments.batch, 1);
  std::vector<std::pair<std::string, Result>> results;
  if (arguments.precision != "bf16") results.emplace_back("f32", measure(arguments, kernels::DType::f32, batches));
  if (arguments.precision != "f32") results.emplace_back("bf16", measure(arguments, kernels::DType::bf16, batches));
  print_table(arguments, results);
}

}  // namespace routescope::train
