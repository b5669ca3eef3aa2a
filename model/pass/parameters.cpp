#include "model/pass/parameters.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "model/pass/reads.h"

namespace routescope::model {

namespace {

std::string layer_prefix(std::int64_t layer) {
  return "model.layers." + std::to_string(layer) + ".";
}

/// "model.layers.3.mlp_res_" or "model.final_res_": the prefix of the names of a read's parameters.
std::string read_prefix(const Read& read) {
  return read.sublayer == Sublayer::final ? "model.final_res_"
                                          : layer_prefix(read.layer) + to_string(read.sublayer) + "_res_";
}

constexpr std::int64_t kAlignment = 16;  // elements: 64 bytes of f32

std::int64_t round_up(std::int64_t count, std::int64_t multiple) {
  return (count + multiple - 1) / multiple * multiple;
}

}  // namespace

ParameterLayout::ParameterLayout(const ModelConfig& config, std::int64_t shards) : shards_(shards) {
  if (shards < 1) throw std::invalid_argument("a parameter layout has at least one shard");
  const std::int64_t d = config.hidden_size, f = config.intermediate_size, h = config.head_dim;
  const std::int64_t q = config.num_attention_heads * h, kv = config.num_key_value_heads * h;
  using enum Initial;
  add("model.embed_tokens.weight", {config.vocab_size, d}, normal, true);
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const std::string p = layer_prefix(layer);
    add(p + "input_layernorm.weight", {d}, ones, false);
    add(p + "self_attn.q_proj.weight", {q, d}, normal, true);
    add(p + "self_attn.k_proj.weight", {kv, d}, normal, true, false);
    add(p + "self_attn.v_proj.weight", {kv, d}, normal, true, false);
    add(p + "self_attn.o_proj.weight", {d, q}, normal, true);
    add(p + "self_attn.q_norm.weight", {h}, ones, false);
    add(p + "self_attn.k_norm.weight", {h}, ones, false);
    add(p + "post_attention_layernorm.weight", {d}, ones, false);
    add(p + "mlp.gate_proj.weight", {f, d}, normal, true);
    add(p + "mlp.up_proj.weight", {f, d}, normal, true, false);
    add(p + "mlp.down_proj.weight", {d, f}, normal, true);
  }
  add("model.norm.weight", {d}, ones, false);
  if (!config.tie_word_embeddings) add("lm_head.weight", {config.vocab_size, d}, normal, true);
  for (const Read& read : ReadPlan(config).reads) {
    if (!read.routed) continue;
    const std::string p = read_prefix(read);
    // Queries start at zero: training starts from uniform routing (MATH.md, "Residual stream and reads").
    add(p + "proj.weight", {1, d}, zeros, false);
    add(p + "norm.weight", {d}, ones, false);
    if (config.has_learned_bias()) add(p + "bias", {}, recency_bias, false);
  }
  place(true);
  matrices_end_ = total_;
  place(false);
}

void ParameterLayout::add(std::string name, std::vector<std::int64_t> shape, Initial initial, bool decay,
                          bool aligned) {
  ParameterInfo info;
  info.name = std::move(name);
  info.shape = std::move(shape);
  info.initial = initial;
  info.decay = decay;
  for (std::int64_t extent : info.shape) info.size *= extent;
  parameters_.push_back(std::move(info));
  aligned_.push_back(aligned);
}

/// The offsets of the matrices or of the vectors, from total_ on.
void ParameterLayout::place(bool matrices) {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    ParameterInfo& info = parameters_[i];
    if (info.decay != matrices) continue;
    if (aligned_[i]) total_ = round_up(total_, kAlignment);
    info.offset = total_;
    total_ += info.size;
  }
  total_ = round_up(total_, kAlignment * shards_);
}

const ParameterInfo& ParameterLayout::at(const std::string& name) const {
  const auto found =
      std::find_if(parameters_.begin(), parameters_.end(), [&](const auto& p) { return p.name == name; });
  if (found == parameters_.end()) throw std::out_of_range("no parameter named " + name);
  return *found;
}

std::int64_t ParameterLayout::count() const {
  std::int64_t sum = 0;
  for (const ParameterInfo& info : parameters_) sum += info.size;
  return sum;
}

Weights::Weights(const ModelConfig& config, const ParameterLayout& layout, kernels::Tensor flat)
    : Weights(config, layout, flat.rows(0, layout.matrices_end()), flat.rows(layout.matrices_end(), layout.total())) {}

Weights::Weights(const ModelConfig& config, const ParameterLayout& layout, kernels::Tensor matrices,
                 kernels::Tensor vectors) {
  const std::int64_t d = config.hidden_size, f = config.intermediate_size, h = config.head_dim;
  const std::int64_t q = config.num_attention_heads * h, kv = config.num_key_value_heads * h;
  const auto get = [&](const std::string& name, std::initializer_list<std::int64_t> shape) {
    const ParameterInfo& info = layout.at(name);
    const kernels::Tensor& part = info.decay ? matrices : vectors;
    return part ? part.slice(info.offset - (info.decay ? 0 : layout.matrices_end()), shape) : kernels::Tensor{};
  };
  embedding = get("model.embed_tokens.weight", {config.vocab_size, d});
  head = config.tie_word_embeddings ? embedding : get("lm_head.weight", {config.vocab_size, d});
  final_norm = get("model.norm.weight", {d});
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const std::string p = layer_prefix(layer);
    layers.push_back({.qkv = get(p + "self_attn.q_proj.weight", {q + 2 * kv, d}),
                      .o = get(p + "self_attn.o_proj.weight", {d, q}),
                      .gate_up = get(p + "mlp.gate_proj.weight", {2 * f, d}),
                      .down = get(p + "mlp.down_proj.weight", {d, f}),
                      .attn_norm = get(p + "input_layernorm.weight", {d}),
                      .mlp_norm = get(p + "post_attention_layernorm.weight", {d}),
                      .q_norm = get(p + "self_attn.q_norm.weight", {h}),
                      .k_norm = get(p + "self_attn.k_norm.weight", {h})});
  }
  for (const Read& read : ReadPlan(config).reads) {
    if (!read.routed) continue;
    const std::string p = read_prefix(read);
    reads.push_back({.query = get(p + "proj.weight", {d}),
                     .key_gain = get(p + "norm.weight", {d}),
                     .bias = config.has_learned_bias() ? get(p + "bias", {1}) : kernels::Tensor{}});
  }
}

MatrixPlaces::MatrixPlaces(const ParameterLayout& layout, std::int64_t num_layers) : end(layout.matrices_end()) {
  const ParameterInfo& embedding = layout.at("model.embed_tokens.weight");
  embedding_end = embedding.offset + embedding.size;
  for (std::int64_t l = 0; l < num_layers; ++l) {
    const std::string p = layer_prefix(l);
    const ParameterInfo& down = layout.at(p + "mlp.down_proj.weight");
    layers.push_back({layout.at(p + "self_attn.q_proj.weight").offset, layout.at(p + "mlp.gate_proj.weight").offset,
                      down.offset + down.size});
  }
}

std::string describe_model(const ModelConfig& config) {
  std::string residual = to_string(config.residual);
  if (config.residual == Residual::block_attn_res) {
    residual += fmt::format(" ({}, {} blocks)", to_string(config.source), config.num_blocks);
  } else if (config.routed()) {
    residual += fmt::format(" ({})", to_string(config.source));
  }
  return fmt::format("{}, {:.2f} M parameters, {} layers, hidden_size {}, {} heads over {} of {}, vocabulary {}",
                     residual, static_cast<double>(ParameterLayout(config).count()) / 1e6, config.num_hidden_layers,
                     config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim,
                     config.vocab_size);
}

}  // namespace routescope::model
