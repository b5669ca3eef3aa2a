// The parameters: their published names and shapes, and where each lies in one flat array.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/tensor.h"
#include "model/config.h"

namespace routescope {

enum class Initial { normal, zeros, ones, recency_bias };

struct ParameterInfo {
  std::string name;                 // as in the Hugging Face file
  std::vector<std::int64_t> shape;  // [] for a scalar
  std::int64_t offset = 0;          // in elements of the flat array
  std::int64_t size = 1;            // product of shape
  Initial initial = Initial::normal;
  bool decay = false;  // weight decay: matrices and the embedding; not gains, biases or routing queries
};

/// Every parameter in file order. Within a layer q, k, v projections lie back to back, as do gate and up, so that each
/// group is one matrix product. `total` includes the padding that keeps groups aligned to 64 bytes; padding stays zero.
class ParameterLayout {
 public:
  explicit ParameterLayout(const ModelConfig& config);

  const std::vector<ParameterInfo>& all() const { return parameters_; }
  /// Throws std::out_of_range for an unknown name.
  const ParameterInfo& at(const std::string& name) const;
  std::int64_t total() const { return total_; }
  /// Without padding.
  std::int64_t count() const;

 private:
  void add(std::string name, std::vector<std::int64_t> shape, Initial initial, bool decay, bool aligned = true);
  std::vector<ParameterInfo> parameters_;
  std::int64_t total_ = 0;
};

struct LayerWeights {
  Tensor qkv;        // [(heads + 2 kv_heads) head_dim, d]
  Tensor o;          // [d, heads head_dim]
  Tensor gate_up;    // [2 f, d]
  Tensor down;       // [d, f]
  Tensor attn_norm;  // [d] input_layernorm
  Tensor mlp_norm;   // [d] post_attention_layernorm
  Tensor q_norm;     // [head_dim]
  Tensor k_norm;     // [head_dim]
};

struct ReadWeights {
  Tensor query;     // [d]
  Tensor key_gain;  // [d]
  Tensor bias;      // [1] or undefined
};

/// Views into a flat array (weights, gradients or moments) laid out by a ParameterLayout.
struct Weights {
  Tensor embedding;  // [vocab, d]
  Tensor head;       // [vocab, d]; the embedding itself when tied
  std::vector<LayerWeights> layers;
  std::vector<ReadWeights> reads;  // one per routed read
  Tensor final_norm;               // [d]

  Weights() = default;
  Weights(const ModelConfig& config, const ParameterLayout& layout, Tensor flat);
};

}  // namespace routescope
