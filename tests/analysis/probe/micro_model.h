// Micro models whose routing is far from uniform, and tokens for them.
#pragma once

#include <random>
#include <vector>

#include "analysis/results/probe_tokens.h"
#include "kernels/ops.h"
#include "model/pass/model.h"

namespace routescope::testing {

inline model::ModelConfig micro_config(model::Residual residual, model::AttnResSource source, std::int64_t layers = 6) {
  model::ModelConfig config;
  config.vocab_size = 37;
  config.hidden_size = 16;
  config.intermediate_size = 24;
  config.num_hidden_layers = layers;
  config.num_attention_heads = 2;
  config.num_key_value_heads = 1;
  config.head_dim = 8;
  config.max_position_embeddings = 64;
  config.residual = residual;
  config.source = source;
  config.num_blocks = 3;
  config.initializer_range = 0.3;  // large enough that every sublayer matters
  return config;
}

/// Queries start at zero (uniform routing); here they are drawn, so that no two routes weigh the same.
inline model::Model micro_model(const model::ModelConfig& config, const model::ModelOptions& options = {}) {
  model::Model model(config, options);
  model.initialize(11);
  std::uint64_t sequence = 0;
  for (const model::ReadWeights& read : model.weights().reads) {
    kernels::random_normal(read.query, 0.5, 12, sequence++, kernels::Stream{});
  }
  model.refresh_operands();
  return model;
}

inline analysis::ProbeTokens micro_tokens(std::int64_t sequences, std::int64_t positions, std::uint64_t seed = 13) {
  std::mt19937_64 random(seed);
  analysis::ProbeTokens tokens{sequences, positions, {}, "random ids, seed " + std::to_string(seed)};
  for (std::int64_t i = 0; i < sequences * positions; ++i)
    tokens.ids.push_back(static_cast<std::int32_t>(random() % 37));
  return tokens;
}

}  // namespace routescope::testing
