// routescope-model: make, convert, look into and evaluate model directories.
#include <CLI/CLI.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "data/base/error.h"
#include "data/base/files.h"
#include "data/tokens/shard.h"
#include "model/files/dump.h"
#include "model/files/safetensors.h"
#include "model/pass/model.h"
#include "model/pass/wrap.h"

namespace {

using namespace routescope;
using namespace routescope::model;
namespace fs = std::filesystem;

struct Arguments {
  std::string model, out, tokens, logit_bias, device = "auto", preset = "qwen3_0.6b", residual = "standard",
                                              source = "block_sum", dtype = "f32";
  std::vector<std::string> set;
  std::int64_t num_blocks = 8, sequences = 1, sequence_length = 256;
  double bias = 0;
  std::uint64_t seed = 1;
  bool grads = false;
};

/// A file says in which arithmetic it is to be computed: bf16 matrices mean bf16 products, f64 ones the reference.
ModelOptions options_of(const fs::path& dir, const std::string& device) {
  ModelOptions options{.device = device_from_string(device, "--device")};
  const fs::path file = dir / "model.safetensors";
  if (!fs::exists(file)) return options;
  const SafetensorsReader reader(file);
  const std::string embedding = "model.embed_tokens.weight";
  if (reader.contains(embedding) && reader.entry(embedding).dtype == kernels::DType::bf16)
    options.operands = kernels::DType::bf16;
  if (reader.contains(embedding) && reader.entry(embedding).dtype == kernels::DType::f64)
    options.storage = options.operands = kernels::DType::f64;
  return options;
}

/// Asked before any work is done for it.
void require_new(const fs::path& out) {
  if (!out.empty() && fs::exists(out)) throw data::Error("{}: exists already, expected a new directory", out.string());
}

/// Creates the directory `out` with whatever `fill` puts there, complete or absent.
void make_directory(const fs::path& out, const std::function<void(const fs::path&)>& fill) {
  const fs::path target = fs::absolute(out).lexically_normal();
  const fs::path temporary = target.parent_path() / (target.filename().string() + ".partial");
  std::error_code ignored;
  try {
    fs::create_directories(temporary);
    fill(temporary);
    fs::rename(temporary, target);
  } catch (const fs::filesystem_error& error) {
    fs::remove_all(temporary, ignored);
    throw data::Error("{}: {}", out.string(), error.code().message());
  } catch (...) {
    fs::remove_all(temporary, ignored);
    throw;
  }
}

void describe(const Model& model, const std::string& where) {
  const ModelConfig& c = model.config();
  std::string routing = to_string(c.residual);
  if (c.routed())
    routing += fmt::format(" ({}, {} reads, {} source columns)", to_string(c.source), model.plan().num_routed(),
                           model.plan().num_columns());
  fmt::print("{}: {:.3f}M parameters, hidden_size {}, {} layers, vocabulary {}, {}\n", where,
             static_cast<double>(model.layout().count()) / 1e6, c.hidden_size, c.num_hidden_layers, c.vocab_size,
             routing);
}

int run_init(const Arguments& a) {
  require_new(a.out);
  ModelConfig config = ModelConfig::preset(a.preset);
  config.residual = residual_from_string(a.residual);
  config.source = attn_res_source_from_string(a.source);
  config.num_blocks = a.num_blocks;
  config.recency_bias = a.bias;
  for (const std::string& assignment : a.set) {
    const auto equals = assignment.find('=');
    if (equals == std::string::npos) throw data::UsageError("--set: found '{}', expected key=value", assignment);
    const auto value = nlohmann::json::parse(assignment.substr(equals + 1), nullptr, false);
    if (value.is_discarded()) throw data::UsageError("--set: found '{}', expected a number, true or false", assignment);
    config.set(assignment.substr(0, equals), value, "--set");
  }
  config.validate("init");
  Model model(config, {});
  model.initialize(a.seed);
  make_directory(a.out, [&](const fs::path& dir) { model.save(dir); });
  describe(model, a.out);
  return 0;
}

int run_wrap(const Arguments& a) {
  require_new(a.out);
  const Model standard = Model::load(a.model, {});
  const Model wrapped = wrap(standard, residual_from_string(a.residual),
                             std::min(a.num_blocks, standard.config().num_hidden_layers), a.bias);
  std::optional<TokenBatch> tokens;
  if (!a.tokens.empty()) tokens = read_tokens(a.tokens, a.sequences, a.sequence_length, standard.config().vocab_size);
  if (!a.out.empty()) {
    make_directory(a.out, [&](const fs::path& dir) { wrapped.save(dir); });
    describe(wrapped, a.out);
  }
  if (tokens) {
    const WrapComparison c = compare_wrapped(wrapped, standard, *tokens);
    fmt::print(
        "bias {:g}: max |alpha - closed form| {:.2e}, max |logits - standard| / max |standard| {:.2e}, nll {:.4f} "
        "(standard {:.4f}) nats a token\n",
        a.bias, c.alpha_error, c.logit_difference, c.nll_wrapped, c.nll_standard);
  }
  return 0;
}

/// import and export: any model directory that loads, written again in f32 or another type, with config.json in our
/// form.
int run_convert(const Arguments& a) {
  require_new(a.out);
  const Model model = Model::load(a.model, {});
  const kernels::DType dtype = a.dtype == "bf16" ? kernels::DType::bf16 : kernels::DType::f32;
  make_directory(a.out, [&](const fs::path& dir) {
    if (dtype == kernels::DType::f32) return model.save(dir);
    std::vector<SafetensorsItem> items;
    for (const ParameterInfo& info : model.layout().all())
      items.push_back({info.name, info.shape, model.parameter(info.name), dtype});
    write_safetensors(dir / "model.safetensors", items, {{"format", "pt"}});
    nlohmann::json config = model.config().to_json();
    config["torch_dtype"] = "bfloat16";
    data::write_text_atomically(dir / "config.json", config.dump(2) + "\n");
  });
  describe(model, a.out);
  return 0;
}

int run_dump(const Arguments& a) {
  const Model model = Model::load(a.model, options_of(a.model, a.device));
  const TokenBatch tokens = read_tokens(a.tokens, a.sequences, a.sequence_length, model.config().vocab_size);
  RoutingIntervention intervention;
  if (!a.logit_bias.empty()) {
    if (!model.config().routed())
      throw data::Error("--logit-bias: {} is a standard model, expected one with reads", a.model);
    intervention.logit_bias = read_logit_bias(a.logit_bias, model.plan());
  }
  dump(model, tokens, intervention, a.grads, a.out);
  return 0;
}

int run_eval(const Arguments& a) {
  const Model model = Model::load(a.model, options_of(a.model, a.device));
  const TokenBatch tokens = read_tokens(a.tokens, a.sequences, a.sequence_length, model.config().vocab_size);
  if (tokens.seq_len < 2) throw data::Error("{}: found sequences of 1 token, expected at least 2", a.tokens);
  Pass pass(model, 1, tokens.seq_len, Pass::Kind::infer);
  std::vector<float> nll(static_cast<std::size_t>(tokens.seq_len));
  double sum = 0, sum_of_squares = 0;
  for (std::int64_t s = 0; s < tokens.sequences; ++s) {
    pass.forward(tokens.sequence(s));
    pass.nll(tokens.targets(s), nll);
    double mean = 0;
    for (float value : nll) mean += static_cast<double>(value) / static_cast<double>(tokens.seq_len - 1);
    sum += mean;
    sum_of_squares += mean * mean;
  }
  const double n = static_cast<double>(tokens.sequences), mean = sum / n;
  describe(model, a.model);
  fmt::print("nll {:.5f} nats a token", mean);
  if (tokens.sequences > 1)
    fmt::print(" (standard error {:.5f} over sequences)",
               std::sqrt(std::max(0.0, sum_of_squares / n - mean * mean) / (n - 1)));
  fmt::print(", perplexity {:.4f}, {} predicted tokens in {} sequences of {}\n", std::exp(mean),
             tokens.sequences * (tokens.seq_len - 1), tokens.sequences, tokens.seq_len);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Make, convert, look into and evaluate model directories (config.json + model.safetensors).",
               "routescope-model");
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  Arguments a;
  const CLI::IsMember residuals({"standard", "block_attn_res", "full_attn_res"}), sources({"block_sum", "cumulative"});

  const auto add_model = [&](CLI::App* command) {
    command->add_option("--model", a.model, "Model directory")->required();
  };
  const auto add_out = [&](CLI::App* command, const char* text) { return command->add_option("--out", a.out, text); };
  const auto add_tokens = [&](CLI::App* command) {
    command->add_option("--sequences", a.sequences, "Of a shard: how many sequences")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    command->add_option("--sequence-length", a.sequence_length, "Of a shard: tokens a sequence")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    return command->add_option("--tokens", a.tokens,
                               "Ids like 1,2,3; an HDF5 file with `tokens` [B, T]; or a token shard");
  };
  const auto add_device = [&](CLI::App* command) {
    command->add_option("--device", a.device, "Where to compute")
        ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
        ->capture_default_str();
  };

  CLI::App* init = app.add_subcommand("init", "Draw a new model");
  init->add_option("--preset", a.preset,
                   fmt::format("Shape to start from: {}", fmt::join(ModelConfig::preset_names(), ", ")))
      ->capture_default_str();
  init->add_option("--residual", a.residual, "Residual mode")->check(residuals)->capture_default_str();
  init->add_option("--source", a.source, "What the sources of a routed model are")
      ->check(sources)
      ->capture_default_str();
  init->add_option("--num-blocks", a.num_blocks, "Blocks of block_attn_res")->capture_default_str();
  init->add_option("--recency-bias", a.bias, "Bias on the current source's logit")->capture_default_str();
  init->add_option("--set", a.set, "A Hugging Face key, as hidden_size=256; may be repeated")->take_all();
  init->add_option("--seed", a.seed, "Seed")->capture_default_str();
  add_out(init, "New model directory")->required();

  CLI::App* wrap_command = app.add_subcommand("wrap", "Give a standard model a deterministic recency-biased routing");
  add_model(wrap_command);
  wrap_command->add_option("--bias", a.bias, "Bias b on the current source's logit")->required();
  wrap_command->add_option("--num-blocks", a.num_blocks, "Blocks (at most one a layer)")->capture_default_str();
  wrap_command->add_flag_callback(
      "--full", [&] { a.residual = "full_attn_res"; }, "A source after every sublayer");
  add_out(wrap_command, "New model directory");
  add_tokens(wrap_command)
      ->description("Compare with the closed form and the standard model on these: ids, HDF5 file or shard");

  CLI::App* import_command =
      app.add_subcommand("import", "Check a Hugging Face directory (sharded or not) and write it as f32");
  CLI::App* export_command = app.add_subcommand("export", "Write a model directory or checkpoint for others");
  for (CLI::App* command : {import_command, export_command}) {
    add_model(command);
    add_out(command, "New model directory")->required();
  }
  export_command->add_option("--dtype", a.dtype, "Stored type")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->capture_default_str();

  CLI::App* dump_command = app.add_subcommand("dump", "Write logits, nll, alpha and gradients to HDF5");
  add_model(dump_command);
  add_tokens(dump_command)->required();
  add_out(dump_command, "HDF5 file to write")->required();
  dump_command->add_flag("--grads", a.grads, "Also the gradient of mean(nll)");
  dump_command->add_option("--logit-bias", a.logit_bias,
                           "HDF5 file with `logit_bias` [read, source], added before the softmax");
  add_device(dump_command);

  CLI::App* eval_command = app.add_subcommand("eval", "Mean negative log-likelihood and perplexity");
  add_model(eval_command);
  add_tokens(eval_command)->required();
  add_device(eval_command);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return data::run_tool("routescope-model", [&]() -> int {
    if (wrap_command->parsed()) {
      if (a.residual == "standard") a.residual = "block_attn_res";
      if (a.out.empty() && a.tokens.empty()) throw data::UsageError("wrap: expected --out, --tokens or both");
      return run_wrap(a);
    }
    if (init->parsed()) return run_init(a);
    if (dump_command->parsed()) return run_dump(a);
    if (eval_command->parsed()) return run_eval(a);
    return run_convert(a);
  });
}
