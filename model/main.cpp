// routescope-model: make, convert, inspect and evaluate model directories. This file is the command line.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <limits>

#include "data/base/command_line.h"
#include "data/base/error.h"
#include "data/base/paths.h"
#include "kernels/cpu/threads.h"
#include "model/commands/commands.h"
#include "model/files/config.h"

namespace {

namespace data = routescope::data;
using routescope::model::Arguments;
using routescope::model::ModelConfig;

constexpr std::int64_t most_extent = 1 << 30;
constexpr double most_bias = std::numeric_limits<float>::max();

void add_model(CLI::App& command, Arguments& a) {
  command.add_option("--model", a.model, "Model directory")->required();
}

CLI::Option* add_out(CLI::App& command, Arguments& a, const char* text) {
  return command.add_option("--out", a.out, text);
}

CLI::Option* add_tokens(CLI::App& command, Arguments& a) {
  data::add_number(command, "--sequences", a.sequences, "Of a shard: how many sequences", 1, most_extent);
  data::add_number(command, "--sequence-length", a.sequence_length, "Of a shard: tokens a sequence", 1, most_extent);
  return command.add_option("--tokens", a.tokens,
                            "Ids like 1,2,3; an HDF5 file with `tokens` [B, T]; or a token shard");
}

void add_device(CLI::App& command, Arguments& a) {
  command.add_option("--device", a.device, "Where to compute")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
}

CLI::App* add_init(CLI::App& app, Arguments& a) {
  CLI::App* init = app.add_subcommand("init", "Draw a new model");
  init->add_option("--preset", a.preset,
                   fmt::format("Shape to start from: {}", fmt::join(ModelConfig::preset_names(), ", ")))
      ->capture_default_str();
  init->add_option("--residual", a.residual, "Residual mode")
      ->check(CLI::IsMember({"standard", "block_attn_res", "full_attn_res"}))
      ->capture_default_str();
  init->add_option("--source", a.source, "What the sources of a routed model are")
      ->check(CLI::IsMember({"block_sum", "cumulative"}))
      ->capture_default_str();
  data::add_number(*init, "--num-blocks", a.num_blocks, "Blocks of block_attn_res", 1, most_extent);
  data::add_number(*init, "--recency-bias", a.bias, "Bias on the current source's logit", -most_bias, most_bias);
  init->add_option("--set", a.set, "A Hugging Face key, as hidden_size=256; may be repeated")->take_all();
  data::add_number(*init, "--seed", a.seed, "Seed");
  add_out(*init, a, "New model directory")->required();
  return init;
}

CLI::App* add_wrap(CLI::App& app, Arguments& a) {
  CLI::App* wrap = app.add_subcommand("wrap", "Give a standard model a deterministic recency-biased routing");
  add_model(*wrap, a);
  data::add_number(*wrap, "--bias", a.bias, "Bias b on the current source's logit", -most_bias, most_bias)
      ->required()
      ->default_str("");
  data::add_number(*wrap, "--num-blocks", a.num_blocks, "Blocks (at most one a layer)", 1, most_extent);
  wrap->add_flag_callback(
      "--full", [&] { a.residual = "full_attn_res"; }, "A source after every sublayer");
  add_out(*wrap, a, "New model directory");
  add_tokens(*wrap, a)->description(
      "Compare with the closed form and the standard model on these: ids, HDF5 file or shard");
  return wrap;
}

void add_convert(CLI::App& app, Arguments& a) {
  CLI::App* import_command =
      app.add_subcommand("import", "Check a Hugging Face directory (sharded or not) and write it as f32");
  CLI::App* export_command = app.add_subcommand("export", "Write a model directory or checkpoint for others");
  for (CLI::App* command : {import_command, export_command}) {
    add_model(*command, a);
    add_out(*command, a, "New model directory")->required();
  }
  export_command->add_option("--dtype", a.dtype, "Stored type")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->capture_default_str();
}

CLI::App* add_dump(CLI::App& app, Arguments& a) {
  CLI::App* dump = app.add_subcommand("dump", "Write logits, nll, alpha and gradients to HDF5");
  add_model(*dump, a);
  add_tokens(*dump, a)->required();
  add_out(*dump, a, "HDF5 file to write")->required();
  dump->add_flag("--grads", a.grads, "Also the gradient of mean(nll)");
  dump->add_option("--logit-bias", a.logit_bias,
                   "HDF5 file with `logit_bias` [read, source], added before the softmax");
  add_device(*dump, a);
  return dump;
}

CLI::App* add_eval(CLI::App& app, Arguments& a) {
  CLI::App* eval = app.add_subcommand("eval", "Mean negative log-likelihood and perplexity");
  add_model(*eval, a);
  add_tokens(*eval, a)->required();
  add_device(*eval, a);
  return eval;
}

int run(int argc, char** argv) {
  using namespace routescope;
  CLI::App app("Make, convert, look into and evaluate model directories (config.json + model.safetensors).",
               "routescope-model");
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  Arguments a;
  const CLI::App *init = add_init(app, a), *wrap = add_wrap(app, a);
  add_convert(app, a);
  const CLI::App *dump = add_dump(app, a), *eval = add_eval(app, a);
  if (const auto done = data::parse_command_line(app, argc, argv)) return *done;
  std::vector<data::NamedPath> inputs{{"--tokens", a.tokens}, {"--logit-bias", a.logit_bias}};
  for (const char* file : {"", "config.json", "model.safetensors", "model.safetensors.index.json", "MANIFEST.json"})
    if (!a.model.empty()) inputs.push_back({"--model", std::filesystem::path(a.model) / file});
  data::require_apart({{"--out", a.out}}, inputs);
  if (wrap->parsed()) {
    if (a.residual == "standard") a.residual = "block_attn_res";
    if (a.out.empty() && a.tokens.empty()) throw data::UsageError("wrap: expected --out, --tokens or both");
    return model::run_wrap(a);
  }
  if (init->parsed()) return model::run_init(a);
  if (dump->parsed()) return model::run_dump(a);
  if (eval->parsed()) return model::run_eval(a);
  return model::run_convert(a);
}

}  // namespace

int main(int argc, char** argv) {
  routescope::kernels::settle_threads(argv);
  return data::run_tool("routescope-model", [&] { return run(argc, argv); });
}
