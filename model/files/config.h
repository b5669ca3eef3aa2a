// What a model is: the Hugging Face Qwen3 keys, and how its residual stream is routed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace routescope::model {

enum class Residual { standard, block_attn_res, full_attn_res };
enum class AttnResSource { block_sum, cumulative };

std::string to_string(Residual residual);
std::string to_string(AttnResSource source);
/// Throw Error naming the accepted words.
Residual residual_from_string(const std::string& text);
AttnResSource attn_res_source_from_string(const std::string& text);

struct ModelConfig {
  std::int64_t vocab_size = 151936;
  std::int64_t hidden_size = 1024;
  std::int64_t intermediate_size = 3072;
  std::int64_t num_hidden_layers = 28;
  std::int64_t num_attention_heads = 16;
  std::int64_t num_key_value_heads = 8;
  std::int64_t head_dim = 128;
  std::int64_t max_position_embeddings = 40960;
  double rms_norm_eps = 1e-6;
  double rope_theta = 1e6;
  double initializer_range = 0.02;
  bool tie_word_embeddings = true;
  std::vector<std::int64_t> bos_token_id, eos_token_id;  // none, one or several

  Residual residual = Residual::standard;
  AttnResSource source = AttnResSource::block_sum;
  std::int64_t num_blocks = 8;  // block_attn_res only
  /// Added to the current source's logit: the initial value of the learned bias (cumulative), a constant (block_sum).
  double recency_bias = 0.0;

  bool routed() const { return residual != Residual::standard; }
  /// The learned scalar bias per read exists only with cumulative sources (MATH.md, "Residual stream and reads").
  bool has_learned_bias() const { return routed() && source == AttnResSource::cumulative; }
  bool has_final_read() const { return routed() && source == AttnResSource::block_sum; }
  /// ceil(L / num_blocks)
  std::int64_t layers_per_block() const { return (num_hidden_layers + num_blocks - 1) / num_blocks; }

  /// Throws Error naming `where`, the key, what was found and what was expected.
  void validate(const std::string& where) const;

  /// The names of presets: qwen3_0.6b, qwen3_1.7b, ... Throws Error naming the known ones.
  static ModelConfig preset(const std::string& name);
  static std::vector<std::string> preset_names();

  /// Sets the Hugging Face key or throws Error; used for configuration files and command lines. `value` is JSON.
  /// The keys that set() takes, for spell checking:
  static const std::vector<std::string>& keys();
  void set(const std::string& key, const nlohmann::json& value, const std::string& where);

  /// config.json, both ways. A key that is absent or null means what it means to transformers. Reading refuses, by
  /// name, what this implementation would compute differently (rope scaling, attention biases, sliding windows, another
  /// activation, another gate type) and a null that transformers refuses.
  nlohmann::json to_json() const;
  static ModelConfig from_json(const nlohmann::json& object, const std::string& where);
  static ModelConfig parse(const std::string& text, const std::string& where);
  static ModelConfig load(const std::filesystem::path& file);

  bool operator==(const ModelConfig&) const = default;
};

}  // namespace routescope::model
