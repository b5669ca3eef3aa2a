// The parameters: their published names and shapes, and where each lies in one flat array.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/tensor.h"
#include "model/files/config.h"

namespace routescope::model {

enum class Initial { normal, zeros, ones, recency_bias };

struct ParameterInfo {
  std::string name;                 // as in the Hugging Face file
  std::vector<std::int64_t> shape;  // [] for a scalar
  std::int64_t offset = 0;          // in elements of the flat array
  std::int64_t size = 1;            // product of shape
  Initial initial = Initial::normal;
  bool decay = false;  // weight decay: matrices and the embedding; not gains, biases or routing queries
};

/// Where each parameter lies in a flat array. First come the matrices (with weight decay): embedding, layers, untied
/// head. Then come the vectors: gains, biases, routing queries. Within a layer the projections q, k, v lie back to
/// back, as do gate and up, so that each group is one matrix product. Groups are aligned to 64 bytes of f32; the
/// padding between them is zero and stays zero. Both parts are padded to a multiple of 16 * `shards` elements, so that
/// as many ranks can have equal, aligned shares. `shards` changes no offset of a matrix, and only shifts those of the
/// vectors.
class ParameterLayout {
 public:
  explicit ParameterLayout(const ModelConfig& config, std::int64_t shards = 1);

  /// In file order, which differs from the order of the flat array.
  const std::vector<ParameterInfo>& all() const { return parameters_; }
  /// Throws std::out_of_range for an unknown name.
  const ParameterInfo& at(const std::string& name) const;
  std::int64_t shards() const { return shards_; }
  /// Elements of the flat array, padding included. [0, matrices_end()) are matrices, the rest vectors.
  std::int64_t total() const { return total_; }
  std::int64_t matrices_end() const { return matrices_end_; }
  /// Without padding.
  std::int64_t count() const;

 private:
  void add(std::string name, std::vector<std::int64_t> shape, Initial initial, bool decay, bool aligned = true);
  void place(bool matrices);
  std::vector<ParameterInfo> parameters_;
  std::vector<bool> aligned_;  // by parameter
  std::int64_t shards_ = 1;
  std::int64_t matrices_end_ = 0;
  std::int64_t total_ = 0;
};

struct LayerWeights {
  kernels::Tensor qkv;        // [(heads + 2 kv_heads) head_dim, d]
  kernels::Tensor o;          // [d, heads head_dim]
  kernels::Tensor gate_up;    // [2 f, d]
  kernels::Tensor down;       // [d, f]
  kernels::Tensor attn_norm;  // [d] input_layernorm
  kernels::Tensor mlp_norm;   // [d] post_attention_layernorm
  kernels::Tensor q_norm;     // [head_dim]
  kernels::Tensor k_norm;     // [head_dim]
};

struct ReadWeights {
  kernels::Tensor query;     // [d]
  kernels::Tensor key_gain;  // [d]
  kernels::Tensor bias;      // [1] or undefined
};

/// Views into a flat array (weights, gradients or moments) laid out by a ParameterLayout, or into its two parts.
struct Weights {
  kernels::Tensor embedding;  // [vocab, d]
  kernels::Tensor head;       // [vocab, d]; the embedding itself when tied
  std::vector<LayerWeights> layers;
  std::vector<ReadWeights> reads;  // one per routed read
  kernels::Tensor final_norm;      // [d]

  Weights() = default;
  Weights(const ModelConfig& config, const ParameterLayout& layout, kernels::Tensor flat);
  /// `matrices` [matrices_end] and `vectors` [total - matrices_end], of any types. An undefined part has undefined
  /// views.
  Weights(const ModelConfig& config, const ParameterLayout& layout, kernels::Tensor matrices, kernels::Tensor vectors);
};

/// Where the matrices lie in the flat array, in the order in which a forward pass reads them: the first elements of a
/// layer's attention and MLP, and the ends of the embedding, of each layer and of all matrices. An untied head lies
/// between the last layer's end and the end of all.
struct MatrixPlaces {
  struct Layer {
    std::int64_t attention, mlp, end;
  };
  std::int64_t embedding_end;
  std::vector<Layer> layers;
  std::int64_t end;

  MatrixPlaces(const ParameterLayout& layout, std::int64_t num_layers);
};

/// "block_attn_res (block_sum, 4 blocks), 3.30 M parameters, 8 layers, hidden_size 128, ...": one line.
std::string describe_model(const ModelConfig& config);

}  // namespace routescope::model
