#include "model/files/config.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <variant>

#include "data/base/error.h"
#include "data/base/json.h"

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
  throw data::Error("residual: found '{}', expected standard, block_attn_res or full_attn_res", data::shortened(text));
}

AttnResSource attn_res_source_from_string(const std::string& text) {
  for (AttnResSource source : {AttnResSource::block_sum, AttnResSource::cumulative})
    if (text == to_string(source)) return source;
  throw data::Error("attn_res source: found '{}', expected block_sum or cumulative", data::shortened(text));
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
  throw data::Error("{}: {}: found {}, expected {}", where, key, data::excerpt(found), expected);
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

namespace {

/// More layers than any model has: the plan of their reads stays small, whatever a file says.
constexpr std::int64_t kMaxLayers = 4096;
/// More elements than any memory has: offsets and sizes in bytes stay within 64 bits.
constexpr double kMaxElements = 0x1p56;

/// These are used in f32, in which they must neither vanish nor overflow.
bool is_f32(double value) {
  return value >= std::numeric_limits<float>::min() && value <= std::numeric_limits<float>::max();
}

/// About how many elements the matrices of a model have; infinite rather than wrong.
double matrix_elements(const ModelConfig& c) {
  const auto real = [](std::int64_t value) { return static_cast<double>(value); };
  const double heads = 2 * real(c.num_attention_heads) + 2 * real(c.num_key_value_heads);
  const double layer = heads * real(c.head_dim) + 3 * real(c.intermediate_size);
  return real(c.hidden_size) * (2 * real(c.vocab_size) + real(c.num_hidden_layers) * layer);
}

}  // namespace

void ModelConfig::validate(const std::string& where) const {
  for (const auto& [key, field] : fields())
    if (const auto* member = std::get_if<std::int64_t ModelConfig::*>(&field))
      if (const std::int64_t value = this->**member; value < 1 || value > (std::int64_t{1} << 31) - 1)
        throw data::Error("{}: {}: found {}, expected 1 to 2147483647", where, key, value);
  if (num_hidden_layers > kMaxLayers)
    throw data::Error("{}: num_hidden_layers: found {}, expected 1 to {}", where, num_hidden_layers, kMaxLayers);
  if (matrix_elements(*this) > kMaxElements)
    throw data::Error("{}: found sizes of a model of {:.1e} parameters, expected at most {:.1e}", where,
                      matrix_elements(*this), kMaxElements);
  if (num_attention_heads % num_key_value_heads != 0)
    throw data::Error("{}: num_attention_heads: found {}, expected a multiple of num_key_value_heads {}", where,
                      num_attention_heads, num_key_value_heads);
  if (head_dim % 2 != 0)
    throw data::Error("{}: head_dim: found {}, expected an even number (rotary embedding turns pairs)", where,
                      head_dim);
  if (!is_f32(rms_norm_eps) || rms_norm_eps >= 1)
    throw data::Error("{}: rms_norm_eps: found {}, expected a number from 1.2e-38 (in f32 not 0) to below 1", where,
                      rms_norm_eps);
  if (!is_f32(rope_theta) || rope_theta <= 1)
    throw data::Error("{}: rope_theta: found {}, expected a number above 1, at most 3.4e38", where, rope_theta);
  if (!is_f32(initializer_range))
    throw data::Error("{}: initializer_range: found {}, expected a number from 1.2e-38 to 3.4e38", where,
                      initializer_range);
  if (residual == Residual::block_attn_res && (num_blocks < 1 || num_blocks > num_hidden_layers))
    throw data::Error("{}: num_blocks: found {}, expected 1 to num_hidden_layers {}", where, num_blocks,
                      num_hidden_layers);
  if (recency_bias != 0 && !is_f32(std::abs(recency_bias)))
    throw data::Error("{}: recency_bias: found {}, expected 0 or a number that f32 can hold", where, recency_bias);
}

namespace {

const std::map<std::string, ModelConfig>& presets() {
  static const std::map<std::string, ModelConfig> table = [] {
    ModelConfig base;  // Qwen3-0.6B; the published shapes of the Qwen3 family
    base.bos_token_id = {151643};
    base.eos_token_id = {151645};
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
  const auto read = [&](auto member) {
    using T = std::remove_reference_t<decltype(this->*member)>;
    this->*member = data::json_value<T>(value, where + ": " + key);
  };
  std::visit(read, found->second);
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
  const auto tokens = [&](std::vector<std::int64_t> ids) {
    std::erase_if(ids, [&](std::int64_t id) { return id >= vocab_size; });
    return ids.empty() ? json(nullptr) : ids.size() == 1 ? json(ids.front()) : json(ids);
  };
  out["bos_token_id"] = tokens(bos_token_id);
  out["eos_token_id"] = tokens(eos_token_id);
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
  const auto text = [&](const std::string& key, const char* fallback) {
    return object.contains(key) ? data::json_member<std::string>(object, key, where) : std::string(fallback);
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
  const std::string blocks = "attnres_num_blocks", bias = "attnres_recency_bias_init";
  config.num_blocks = object.contains(blocks) ? data::json_member<std::int64_t>(object, blocks, where) : 8;
  config.recency_bias = object.contains(bias) ? data::json_member<double>(object, bias, where) : 3.0;
  // Published files may name more blocks than there are layers: every layer is then its own block.
  if (config.source == AttnResSource::cumulative && config.num_blocks > config.num_hidden_layers)
    config.num_blocks = config.num_hidden_layers;
}

/// The rotary embedding. transformers takes its parameters from rope_scaling or from rope_parameters, in which
/// rope_theta has precedence over the outer one.
void read_rope(ModelConfig& config, const json& object, const std::string& where) {
  const auto of = [&](const char* key) {
    const auto found = object.find(key);
    if (found == object.end() || found->is_null()) return json::object();
    if (!found->is_object()) refuse(where, key, *found, "an object or null");
    return *found;
  };
  const json scaling = of("rope_scaling"), parameters = of("rope_parameters");
  if (!scaling.empty() && !parameters.empty()) refuse(where, "rope_scaling", scaling, "null beside rope_parameters");
  const bool scaled = !scaling.empty();
  const json& rope = scaled ? scaling : parameters;
  const std::string at = where + (scaled ? ": rope_scaling" : ": rope_parameters");
  for (const auto& [key, value] : rope.items())
    if (value.is_structured()) refuse(at, data::shortened(key), value, "no parameters for each kind of layer");
  for (const char* type : {"rope_type", "type"})
    require_neutral(
        rope, type, [](const json& v) { return v == "default"; }, "\"default\" (no scaled rotary embedding)", at);
  for (const auto& [holder, place] : {std::pair{&rope, at}, {&object, where}})
    require_neutral(
        *holder, "partial_rotary_factor", [](const json& v) { return v.is_null() || v == 1; }, "1", place);
  if (rope.contains("rope_theta")) config.set("rope_theta", rope.at("rope_theta"), at);
}

/// What the keys beside the shape may say.
void refuse_other_models(const ModelConfig& config, const json& object, const std::string& where) {
  for (const char* key : {"attention_bias", "use_sliding_window", "attnres_use_null_source"})
    require_neutral(object, key, is_null_or_false, "false", where);
  require_neutral(
      object, "hidden_act", [](const json& v) { return v == "silu"; }, "\"silu\"", where);
  require_neutral(
      object, "attention_dropout", [](const json& v) { return v.is_null() || v == 0; }, "0", where);
  require_neutral(
      object, "quantization_config", [](const json& v) { return v.is_null(); }, "null (weights as they are)", where);
  const auto full_attention = [&](const json& types) {
    return types.is_null() || (types.is_array() && std::ssize(types) == config.num_hidden_layers &&
                               std::ranges::all_of(types, [](const json& v) { return v == "full_attention"; }));
  };
  require_neutral(object, "layer_types", full_attention, "null, or \"full_attention\" for each layer", where);
}

std::vector<std::int64_t> read_token_ids(const json& object, const std::string& key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return {};
  if (found->is_array()) return data::json_value<std::vector<std::int64_t>>(*found, where + ": " + key);
  return {data::json_value<std::int64_t>(*found, where + ": " + key)};
}

}  // namespace

ModelConfig ModelConfig::from_json(const json& object, const std::string& where) {
  const auto type = data::json_member<std::string>(object, "model_type", where);
  if (type != "qwen3" && type != "qwen3_attnres") refuse(where, "model_type", type, "qwen3 or qwen3_attnres");

  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"})
    if (!object.contains(key)) throw data::Error("{}: {}: absent, expected an integer", where, key);
  ModelConfig config;
  // transformers' own defaults for what a config.json may leave out.
  config.num_key_value_heads = 32;
  config.max_position_embeddings = 32768;
  config.rope_theta = 1e4;
  config.tie_word_embeddings = false;
  for (const auto& [key, field] : fields()) {
    const auto found = object.find(key);
    if (found == object.end()) continue;
    if (key == "num_key_value_heads" && found->is_null())  // one for each head; "num_attention_heads" was read before
      config.num_key_value_heads = config.num_attention_heads;
    else
      config.set(key, *found, where);
  }
  read_rope(config, object, where);
  refuse_other_models(config, object, where);
  config.bos_token_id = read_token_ids(object, "bos_token_id", where);
  config.eos_token_id = read_token_ids(object, "eos_token_id", where);
  if (type == "qwen3_attnres") read_attn_res(config, object, where);
  config.validate(where);
  return config;
}

ModelConfig ModelConfig::parse(const std::string& text, const std::string& where) {
  return from_json(data::parse_json(text, where), where);
}

ModelConfig ModelConfig::load(const std::filesystem::path& file) {
  return from_json(data::read_json(file), file.string());
}

}  // namespace routescope::model
