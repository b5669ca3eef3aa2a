// Micro models for tests: every residual mode, small enough for finite differences, with routing that is not at its
// neutral starting point.
#pragma once

#include <cstdint>
#include <filesystem>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "model/pass/model.h"

namespace routescope::micro {

struct Mode {
  std::string name;
  model::Residual residual;
  model::AttnResSource source;
};

inline void PrintTo(const Mode& mode, std::ostream* out) {
  *out << mode.name;
}

inline const std::vector<Mode>& modes() {
  static const std::vector<Mode> all{
      {"standard", model::Residual::standard, model::AttnResSource::block_sum},
      {"block_sum", model::Residual::block_attn_res, model::AttnResSource::block_sum},
      {"block_cumulative", model::Residual::block_attn_res, model::AttnResSource::cumulative},
      {"full_block_sum", model::Residual::full_attn_res, model::AttnResSource::block_sum},
      {"full_cumulative", model::Residual::full_attn_res, model::AttnResSource::cumulative}};
  return all;
}

/// 4 layers in 2 blocks, hidden size 8, 2 query heads over 1 key/value head, vocabulary 13.
inline model::ModelConfig config(const Mode& mode) {
  model::ModelConfig c;
  c.vocab_size = 13;
  c.hidden_size = 8;
  c.intermediate_size = 12;
  c.num_hidden_layers = 4;
  c.num_attention_heads = 2;
  c.num_key_value_heads = 1;
  c.head_dim = 6;
  c.max_position_embeddings = 64;
  c.initializer_range = 0.4;
  c.residual = mode.residual;
  c.source = mode.source;
  if (c.routed()) {
    c.num_blocks = 2;
    c.recency_bias = 0.3;
  }
  return c;
}

inline void set_element(const kernels::Tensor& tensor, std::int64_t i, double value) {
  if (tensor.dtype == kernels::DType::f64)
    tensor.as<double>()[i] = value;
  else
    tensor.as<float>()[i] = static_cast<float>(value);
}

inline double element(const kernels::Tensor& tensor, std::int64_t i) {
  return tensor.dtype == kernels::DType::f64 ? tensor.as<double>()[i] : static_cast<double>(tensor.as<float>()[i]);
}

/// Draws everything, gains around one and queries and biases away from zero, by `spread`.
inline void randomize(model::Model& model, std::uint64_t seed, double spread = 0.5) {
  model.initialize(seed);
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal(0.0, spread);
  for (const model::ParameterInfo& info : model.layout().all()) {
    if (info.initial == model::Initial::normal) continue;
    const kernels::Tensor tensor = model.parameter(info.name);
    for (std::int64_t i = 0; i < info.size; ++i) set_element(tensor, i, element(tensor, i) + normal(engine));
  }
  model.refresh_operands();
}

inline std::vector<std::int32_t> tokens(std::int64_t count, std::int64_t vocab, std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::uniform_int_distribution<std::int32_t> draw(0, static_cast<std::int32_t>(vocab - 1));
  std::vector<std::int32_t> out(static_cast<std::size_t>(count));
  for (auto& id : out) id = draw(engine);
  return out;
}

/// A directory that goes when the test ends.
struct TemporaryDirectory {
  std::filesystem::path path;
  TemporaryDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "routescope-test-XXXXXX").string();
    if (!mkdtemp(pattern.data())) throw std::runtime_error("mkdtemp failed");
    path = pattern;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
};

}  // namespace routescope::micro
