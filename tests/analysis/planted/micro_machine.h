// Models of eight coordinates whose every weight is set by hand, so that what they say, and why, is known.
//
// A token is four bits of +-1: `answer`, `signal`, `other` and `choice`. The embedding holds all of them but `answer`,
// and a one. What is to be predicted is the next token's `answer`; its other bits are chance. The head sees the
// coordinate `said` alone: the logit of a token is strength * answer * said.
//
// Three layers in three blocks, so that every slice has one read and every source one origin:
//
//   source      is what                    adds
//   embedding   the embedding              ( one, signal, other, choice )
//   block_1     layer 0                    ( bit of the previous token -> signal or unread, tag_1 )     or nothing
//   block_2     layer 1                    ( bit of the previous token -> signal, tag_2 )               or nothing
//   current     layer 2's attention        ( constant -> unread )                                       or nothing
//
// The last MLP reads coordinate `signal` of h = sum alpha_i v_i and writes phi(signal) into `said`, phi odd and rising.
// The final read takes that alone, and the final norm makes +-sqrt(8) of it, however large it is: the model says the
// sign of h's `signal`, or nothing where that is zero. With beta = 2 strength sqrt(8) the loss of a token is
//
//   ln(8) + softplus(-beta * answer * said)          said in {-1, 0, 1}: ln(16) where nothing is said
//
// Every read but those of a mechanism has a zero query, and the recency bias leaves it its current source only. Logits
// of routes that must not leak are at least 110 apart: exp(-110) is zero in f32. rms_norm_eps is so small that norms
// divide by the norm alone.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <string>

#include "model/pass/model.h"

namespace routescope::planted {

enum Coordinate { one, signal, other, choice, tag_1, tag_2, unread, said, coordinates };

inline constexpr double recency = 120;          // logit of the current source, everywhere
inline constexpr double alone = recency + 120;  // of a source that takes all the weight from the current one
inline constexpr double magnitude = 0.25;       // of a bit that attention carries; 1 in the embedding
/// Of the tag that comes with it: so large that its source's norm, and with it the logit, hardly feels the bit.
inline constexpr double tag_magnitude = 8;

enum class Bit { answer, signal, other, choice };
inline int bit(std::int32_t token, Bit which) {
  return token >> static_cast<int>(which) & 1 ? 1 : -1;
}

class Machine {
 public:
  /// The last MLP says the coordinate `says`.
  explicit Machine(double beta, Coordinate says = signal) : model_(config(), {}) {
    zero();
    for (std::int32_t token = 0; token < 16; ++token) {
      at("model.embed_tokens.weight", token, one) = 1;
      at("model.embed_tokens.weight", token, signal) = static_cast<float>(bit(token, Bit::signal));
      at("model.embed_tokens.weight", token, other) = static_cast<float>(bit(token, Bit::other));
      at("model.embed_tokens.weight", token, choice) = static_cast<float>(bit(token, Bit::choice));
      at("lm_head.weight", token, said) = static_cast<float>(beta / (2 * std::sqrt(8.0)) * bit(token, Bit::answer));
    }
    say(says);
  }

  /// Logits of the embedding in a read: `base`, plus `by_choice` times the token's choice. Its norm is always that of
  /// four coordinates of +-1.
  void weigh_embedding(const std::string& read, double base, double by_choice = 0) {
    at(query(read), 0, one) = static_cast<float>(base * std::sqrt(4.0 / 8));
    at(query(read), 0, choice) = static_cast<float>(by_choice * std::sqrt(4.0 / 8));
  }

  /// The same of a block that copy_previous() filled.
  void weigh_block(const std::string& read, Coordinate tag, double logit) {
    const double norm = std::sqrt((magnitude * magnitude + tag_magnitude * tag_magnitude) / 8);
    at(query(read), 0, tag) = static_cast<float>(logit * norm / tag_magnitude);
  }

  /// Attention of a layer, which must read the embedding alone, becomes a previous-token head: query (1, 0) and key
  /// (cos 1, sin 1) for every token, and rotary embedding turns by one radian a position, so that the score of the
  /// token `back` before is proportional to cos(back - 1), which up to 16 positions is largest at 1, by 4 %; with
  /// norms' gains of 48 that is 130 nats. (The first token finds itself.) Its bit `from` goes to `to`, the constant to
  /// `tag`.
  void copy_previous(int layer, Coordinate from, Coordinate to, Coordinate tag, double size = magnitude,
                     double tag_size = tag_magnitude) {
    const std::string attention = "model.layers." + std::to_string(layer) + ".self_attn.";
    at(attention + "q_proj.weight", 0, one) = 1;
    at(attention + "k_proj.weight", 0, one) = static_cast<float>(std::cos(1.0));
    at(attention + "k_proj.weight", 1, one) = static_cast<float>(std::sin(1.0));
    for (int i = 0; i < 2; ++i) {
      at(attention + "q_norm.weight", 0, i) = 48;
      at(attention + "k_norm.weight", 0, i) = 48;
    }
    at(attention + "v_proj.weight", 0, from) = 1;
    at(attention + "v_proj.weight", 1, one) = 1;
    // The embedding's ones are sqrt(2) after the norm.
    at(attention + "o_proj.weight", to, 0) = static_cast<float>(size / std::sqrt(2.0));
    at(attention + "o_proj.weight", tag, 1) = static_cast<float>(tag_size / std::sqrt(2.0));
  }

  const model::Model& model() const { return model_; }

 private:
  static model::ModelConfig config() {
    model::ModelConfig config;
    config.vocab_size = 16;
    config.hidden_size = coordinates;
    config.intermediate_size = 2;
    config.num_hidden_layers = 3;
    config.num_attention_heads = 1;
    config.num_key_value_heads = 1;
    config.head_dim = 2;
    config.max_position_embeddings = 16;
    config.rms_norm_eps = 1e-24;
    config.tie_word_embeddings = false;
    config.residual = model::Residual::block_attn_res;
    config.source = model::AttnResSource::block_sum;
    config.num_blocks = 3;
    config.recency_bias = recency;
    return config;
  }

  /// All matrices and queries zero, all gains one.
  void zero() {
    model_.initialize(0);
    for (const model::ParameterInfo& info : model_.layout().all()) {
      if (info.initial != model::Initial::normal) continue;
      for (std::int64_t i = 0; i < info.size; ++i) model_.parameter(info.name).as<float>()[i] = 0;
    }
  }

  /// The last MLP's two units: with x the normalised coordinate, silu(x) x + silu(-x) x = x^2 tanh(x / 2).
  void say(Coordinate what) {
    const std::string mlp = "model.layers.2.mlp.";
    at(mlp + "gate_proj.weight", 0, what) = 1;
    at(mlp + "gate_proj.weight", 1, what) = -1;
    for (int unit = 0; unit < 2; ++unit) {
      at(mlp + "up_proj.weight", unit, what) = 1;
      at(mlp + "down_proj.weight", said, unit) = 1;
    }
  }

  static std::string query(const std::string& read) {
    return "model.layers." + read.substr(0, 1) + "." + read.substr(2) + "_res_proj.weight";
  }

  float& at(const std::string& name, std::int64_t row, std::int64_t column) {
    const model::ParameterInfo& info = model_.layout().at(name);
    return model_.parameter(name).as<float>()[row * info.shape.back() + column];
  }

  model::Model model_;
};

}  // namespace routescope::planted
