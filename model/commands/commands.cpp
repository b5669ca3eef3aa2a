#include "model/commands/commands.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "data/base/error.h"
#include "data/base/files.h"
#include "data/base/text.h"
#include "model/commands/dump.h"
#include "model/files/safetensors.h"
#include "model/files/tokens.h"
#include "model/files/weights.h"
#include "model/pass/model.h"
#include "model/pass/pass.h"
#include "model/wrap/wrap.h"

namespace routescope::model {

namespace {

namespace fs = std::filesystem;

/// The type of the stored matrices chooses the arithmetic: bf16 means bf16 products, f64 the reference.
ModelOptions options_of(const fs::path& dir, const std::string& device) {
  ModelOptions options{.device = device_from_string(device, "--device")};
  if (!fs::exists(dir / "config.json")) return options;  // Model::load() then says so
  const WeightFiles files(dir);
  const std::string embedding = "model.embed_tokens.weight";
  const kernels::DType stored = files.file_of(embedding).entry(embedding).dtype;
  if (stored == kernels::DType::bf16) options.operands = stored;
  if (stored == kernels::DType::f64) options.storage = options.operands = stored;
  return options;
}

void require_new(const fs::path& out) {
  if (!out.empty() && fs::exists(out)) throw data::Error("{}: exists already, expected a new directory", out.string());
}

void describe(const Model& model, const std::string& where) {
  const ModelConfig& c = model.config();
  std::string routing = to_string(c.residual);
  if (c.routed())
    routing += fmt::format(" ({}, {} reads, {} source columns)", to_string(c.source), model.plan().num_routed(),
                           model.plan().num_columns());
  fmt::print("{}: {:.3f}M parameters, hidden_size {}, {} layers, vocabulary {}, {}\n", data::printable(where),
             static_cast<double>(model.layout().count()) / 1e6, c.hidden_size, c.num_hidden_layers, c.vocab_size,
             routing);
}

}  // namespace

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
    const std::string text = assignment.substr(equals + 1);
    const auto value = nlohmann::json::parse(text, nullptr, false);
    if (value.is_discarded() || text.find_first_of(" \t\r\n") != std::string::npos)
      throw data::UsageError("--set: found '{}', expected a number, true or false", assignment);
    config.set(assignment.substr(0, equals), value, "--set");
  }
  config.validate("init");
  Model model(config, {});
  model.initialize(a.seed);
  data::write_directory_atomically(a.out, [&](const fs::path& dir) { model.save(dir); });
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
    data::write_directory_atomically(a.out, [&](const fs::path& dir) { wrapped.save(dir); });
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

int run_convert(const Arguments& a) {
  require_new(a.out);
  const Model model = Model::load(a.model, {});
  const kernels::DType dtype = a.dtype == "bf16" ? kernels::DType::bf16 : kernels::DType::f32;
  data::write_directory_atomically(a.out, [&](const fs::path& dir) {
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

}  // namespace routescope::model
