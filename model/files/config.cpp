#include "model/files/config.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <variant>

#include "data/base/error.h"
#include "data/base/files.h"

namespace routescope::model {

using nlohmann::json;

std::string to_string(Residual residual) {
  switch (residual) {
    case Residual::standard:
      return "standard";
    case Residual::block_attn_res:
      return "block_attn_res";
    case Residual::full_attn_res:
      return "full_attn_res";
  }
  return "";
}

std::string to_string(AttnResSource source) {
  return source == AttnResSource::block_sum ? "block_sum" : "cumulative";
}

Residual residual_from_string(const std::string& text) {
  for (Residual residual : {Residual::standard, Residual::block_attn_res, Residual::full_attn_res})
    if (text == to_string(residual)) return residual;
  throw data::Error("residual: found '{}', expected standard, block_attn_res or full_attn_res", text);
}

AttnResSource attn_res_source_from_string(const std::string& text) {
  for (AttnResSource source : {AttnResSource::block_sum, AttnResSource::cumulative})
    if (text == to_string(source)) return source;
  throw data::Error("attn_res source: found '{}', expected block_sum or cumulative", text);
}

namespace {

// The keys that choose a shape, as a person may set them. Everything else in a config.json is read in from_json.
using Field = std::variant<std::int64_t ModelConfig::*, double ModelConfig::*, bool ModelConfig::*>;

const std::map<std::string, Field>& fields() {
  static const std::map<std::string, Field> table{
      {"vocab_size", &ModelConfig::vocab_size},
      {"hidden_size", &ModelConfig::hidden_size},
      {"intermediate_size", &ModelConfig::intermediate_size},
      {"num_hidden_layers", &ModelConfig::num_hidden_layers},
      {"num_attention_heads", &ModelConfig::num_attention_heads},
      {"num_key_value_heads", &ModelConfig::num_key_value_heads},
      {"head_dim", &ModelConfig::head_dim},
      {"max_position_embeddings", &ModelConfig::max_position_embeddings},
      {"rms_norm_eps", &ModelConfig::rms_norm_eps},
      {"rope_theta", &ModelConfig::rope_theta},
      {"initializer_range", &ModelConfig::initializer_range},
      {"tie_word_embeddings", &ModelConfig::tie_word_embeddings},
  };
  return table;
}

[[noreturn]] void refuse(const std::string& where, const std::string& key, const json& found,
                         const std::string& expected) {
  throw data::Error("{}: {}: found {}, expected {}", where, key, found.dump(), expected);
}

// Values of config.json that change the computation and that this implementation does not have: only the neutral one
// passes.
void require_neutral(const json& object, const std::string& key, const std::function<bool(const json&)>& neutral,
                     const std::string& expected, const std::string& where) {
  const auto found = object.find(key);
  if (found != object.end() && !neutral(*found)) refuse(where, key, *found, expected);
}

bool is_null_or_false(const json& value) {
  return value.is_null() || value == false;
}

}  // namespace

void ModelConfig::validate(const std::string& where) const {
  for (const auto& [key, field] : fields())
    if (const auto* member = std::get_if<std::int64_t ModelConfig::*>(&field))
      if (const std::int64_t value = this->**member; value < 1 || value > (std::int64_t{1} << 31) - 1)
        throw data::Error("{}: {}: found {}, expected 1 to 2147483647", where, key, value);
  if (num_attention_heads % num_key_value_heads != 0)
    throw data::Error("{}: num_attention_heads: found {}, expected a multiple of num_key_value_heads {}", where,
                      num_attention_heads, num_key_value_heads);
  if (head_dim % 2 != 0)
    throw data::Error("{}: head_dim: found {}, expected an even number (rotary embedding turns pairs)", where,
                      head_dim);
  if (!(rms_norm_eps > 0 && rms_norm_eps < 1))
    throw data::Error("{}: rms_norm_eps: found {}, expected 0 < eps < 1", where, rms_norm_eps);
  if (!(rope_theta > 1) || !std::isfinite(rope_theta))
    throw data::Error("{}: rope_theta: found {}, expected a finite number above 1", where, rope_theta);
  if (!(initializer_range > 0) || !std::isfinite(initializer_range))
    throw data::Error("{}: initializer_range: found {}, expected a positive number", where, initializer_range);
  if (residual == Residual::block_attn_res && (num_blocks < 1 || num_blocks > num_hidden_layers))
    throw data::Error("{}: num_blocks: found {}, expected 1 to num_hidden_layers {}", where, num_blocks,
                      num_hidden_layers);
  if (!std::isfinite(recency_bias))
    throw data::Error("{}: recency_bias: found {}, expected a finite number", where, recency_bias);
}

namespace {

const std::map<std::string, ModelConfig>& presets() {
  static const std::map<std::string, ModelConfig> table = [] {
    ModelConfig base;  // Qwen3-0.6B; the published shapes of the Qwen3 family
    base.bos_token_id = 151643;
    base.eos_token_id = 151645;
    ModelConfig b1_7 = base;
    b1_7.hidden_size = 2048;
    b1_7.intermediate_size = 6144;
    ModelConfig b4 = base;
    b4.hidden_size = 2560;
    b4.intermediate_size = 9728;
    b4.num_hidden_layers = 36;
    b4.num_attention_heads = 32;
    ModelConfig b8 = b4;
    b8.hidden_size = 4096;
    b8.intermediate_size = 12288;
    b8.tie_word_embeddings = false;
    return std::map<std::string, ModelConfig>{
        {"qwen3_0.6b", base}, {"qwen3_1.7b", b1_7}, {"qwen3_4b", b4}, {"qwen3_8b", b8}};
  }();
  return table;
}

}  // namespace

std::vector<std::string> ModelConfig::preset_names() {
  std::vector<std::string> names;
  for (const auto& [name, config] : presets()) names.push_back(name);
  return names;
}

ModelConfig ModelConfig::preset(const std::string& name) {
  const auto found = presets().find(name);
  if (found == presets().end())
    throw data::Error("preset: found '{}', expected one of {}", name, fmt::join(preset_names(), ", "));
  return found->second;
}

const std::vector<std::string>& ModelConfig::keys() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> out;
    for (const auto& [key, field] : fields()) out.push_back(key);
    return out;
  }();
  return names;
}

void ModelConfig::set(const std::string& key, const json& value, const std::string& where) {
  const auto found = fields().find(key);
  if (found == fields().end())
    throw data::Error("{}: unknown model key '{}', expected one of {}", where, key, fmt::join(keys(), ", "));
  if (const auto* integer = std::get_if<std::int64_t ModelConfig::*>(&found->second)) {
    if (!value.is_number_integer()) refuse(where, key, value, "an integer");
    this->** integer = value.get<std::int64_t>();
  } else if (const auto* real = std::get_if<double ModelConfig::*>(&found->second)) {
    if (!value.is_number()) refuse(where, key, value, "a number");
    this->** real = value.get<double>();
  } else {
    if (!value.is_boolean()) refuse(where, key, value, "true or false");
    this->*std::get<bool ModelConfig::*>(found->second) = value.get<bool>();
  }
}

json ModelConfig::to_json() const {
  json out{{"architectures", json::array({routed() ? "Qwen3AttnResForCausalLM" : "Qwen3ForCausalLM"})},
           {"model_type", routed() ? "qwen3_attnres" : "qwen3"},
           {"hidden_act", "silu"},
           {"attention_bias", false},
           {"attention_dropout", 0.0},
           {"use_sliding_window", false},
           {"use_cache", true},
           {"rope_scaling", nullptr},
           {"torch_dtype", "float32"}};
  for (const auto& [key, field] : fields())
    std::visit([&, name = key](auto member) { out[name] = this->*member; }, field);
  // A preset's special tokens have no meaning in a smaller vocabulary.
  const auto token = [&](std::optional<std::int64_t> id) { return id && *id < vocab_size ? json(*id) : json(nullptr); };
  out["bos_token_id"] = token(bos_token_id);
  out["eos_token_id"] = token(eos_token_id);
  if (routed()) {
    out["attnres_mode"] = residual == Residual::block_attn_res ? "block" : "full";
    out["attnres_num_blocks"] = num_blocks;
    out["attnres_gate_type"] = "bias";
    out["attnres_recency_bias_init"] = recency_bias;
    out["attnres_source"] = to_string(source);
  }
  return out;
}

namespace {

/// The keys attnres_* of a config.json.
void read_attn_res(ModelConfig& config, const json& object, const std::string& where) {
  const auto text = [&](const char* key, const char* fallback) {
    const auto found = object.find(key);
    if (found == object.end()) return std::string(fallback);
    if (!found->is_string()) refuse(where, key, *found, "a string");
    return found->get<std::string>();
  };
  const std::string mode = text("attnres_mode", "block");
  if (mode != "block" && mode != "full") refuse(where, "attnres_mode", mode, "\"block\" or \"full\"");
  config.residual = mode == "block" ? Residual::block_attn_res : Residual::full_attn_res;
  if (const std::string gate = text("attnres_gate_type", "bias"); gate != "bias")
    refuse(where, "attnres_gate_type", gate, "\"bias\"");
  try {
    config.source =
        attn_res_source_from_string(text("attnres_source", "cumulative"));  // absent: a published checkpoint
  } catch (const data::Error& error) {
    throw data::Error("{}: attnres_source: {}", where, error.what());
  }
  const json blocks = object.value("attnres_num_blocks", json(8));
  if (!blocks.is_number_integer()) refuse(where, "attnres_num_blocks", blocks, "an integer");
  config.num_blocks = blocks.get<std::int64_t>();
  const json bias = object.value("attnres_recency_bias_init", json(3.0));
  if (!bias.is_number()) refuse(where, "attnres_recency_bias_init", bias, "a number");
  config.recency_bias = bias.get<double>();
  // Published files may name more blocks than there are layers: every layer is then its own block.
  if (config.source == AttnResSource::cumulative && config.num_blocks > config.num_hidden_layers)
    config.num_blocks = config.num_hidden_layers;
}

}  // namespace

ModelConfig ModelConfig::from_json(const json& object, const std::string& where) {
  if (!object.is_object()) throw data::Error("{}: found {}, expected a JSON object", where, object.type_name());
  ModelConfig config;
  const std::string type = object.value("model_type", json("(absent)")).is_string()
                               ? object.value("model_type", std::string("(absent)"))
                               : std::string("(not a string)");
  if (type != "qwen3" && type != "qwen3_attnres") refuse(where, "model_type", type, "qwen3 or qwen3_attnres");

  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"})
    if (!object.contains(key)) throw data::Error("{}: {}: absent, expected an integer", where, key);
  // transformers' own defaults for what a config.json may leave out.
  config.num_key_value_heads = 32;
  config.max_position_embeddings = 32768;
  config.rope_theta = 1e4;
  config.tie_word_embeddings = false;
  for (const auto& [key, field] : fields())
    if (const auto found = object.find(key); found != object.end() && !found->is_null()) config.set(key, *found, where);

  // Newer files keep the rotary parameters in an object of their own.
  if (const auto rope = object.find("rope_parameters"); rope != object.end() && rope->is_object()) {
    require_neutral(
        *rope, "rope_type", [](const json& v) { return v == "default"; }, "\"default\"", where);
    if (rope->contains("rope_theta")) config.set("rope_theta", rope->at("rope_theta"), where);
  }
  require_neutral(
      object, "rope_scaling",
      [](const json& v) { return v.is_null() || (v.is_object() && v.value("rope_type", "") == "default"); },
      "null (scaled rotary embeddings are not part of this model)", where);
  require_neutral(object, "attention_bias", is_null_or_false, "false", where);
  require_neutral(object, "use_sliding_window", is_null_or_false, "false", where);
  require_neutral(
      object, "hidden_act", [](const json& v) { return v == "silu"; }, "\"silu\"", where);
  require_neutral(object, "attnres_use_null_source", is_null_or_false, "false", where);
  for (const auto& [key, target] :
       {std::pair{"bos_token_id", &config.bos_token_id}, {"eos_token_id", &config.eos_token_id}})
    if (const auto found = object.find(key); found != object.end() && found->is_number_integer())
      *target = found->get<std::int64_t>();

  if (type == "qwen3_attnres") read_attn_res(config, object, where);
  config.validate(where);
  return config;
}

ModelConfig ModelConfig::load(const std::filesystem::path& file) {
  json object;
  try {
    object = json::parse(data::read_text(file));
  } catch (const json::parse_error& error) {
    throw data::Error("{}: byte {}: not valid JSON", file.string(), error.byte);
  }
  return from_json(object, file.string());
}

}  // namespace routescope::model
