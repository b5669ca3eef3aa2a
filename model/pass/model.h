// A Qwen3 model with a standard or routed residual stream: its parameters (Model) and one forward or backward pass over
// a batch of fixed geometry (Pass).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "kernels/memory.h"
#include "kernels/ops.h"
#include "model/files/config.h"
#include "model/pass/parameters.h"
#include "model/pass/reads.h"

namespace routescope::model {

/// Where and in which arithmetic a model runs. `storage`, of parameters and their gradients: f64 is the reference (CPU
/// only). `operands` bf16: the matrices, embedding included, are used rounded to bf16, and so is the other operand of
/// every product (f32 sums); on CUDA all activations then are bf16 too, with f32 arithmetic in between. `shards`: ranks
/// that share the flat arrays (ParameterLayout).
struct ModelOptions {
  kernels::Device device = kernels::Device::cpu;
  kernels::DType storage = kernels::DType::f32;
  kernels::DType operands = kernels::DType::f32;
  std::int64_t shards = 1;

  kernels::DType activations() const { return device == kernels::Device::cuda ? operands : storage; }
};

/// auto (a CUDA device where one answers), cpu or cuda. Throws Error, naming `where`, for a device that is not there.
kernels::Device device_from_string(const std::string& text, const std::string& where);

/// The parameters of a model, on a device.
class Model {
 public:
  Model(const ModelConfig& config, const ModelOptions& options);

  /// Draws every parameter: a pure function of the seed, the configuration and the parameter's name.
  void initialize(std::uint64_t seed);

  /// A model directory (config.json, model.safetensors). Throws Error for whatever does not fit.
  static Model load(const std::filesystem::path& dir, const ModelOptions& options);
  /// Writes config.json and model.safetensors (f32) into an existing directory, each complete or absent, and synced.
  /// Throws std::logic_error after release_matrices().
  void save(const std::filesystem::path& dir) const;
  /// The same for parameters [layout.total()] of any storage type, in host memory.
  static void save(const std::filesystem::path& dir, const ModelConfig& config, const ParameterLayout& layout,
                   kernels::Tensor parameters);

  const ModelConfig& config() const { return config_; }
  const ModelOptions& options() const { return options_; }
  const ReadPlan& plan() const { return plan_; }
  const ParameterLayout& layout() const { return layout_; }
  /// All parameters [layout.total()] in the storage type. Throws std::logic_error after release_matrices().
  kernels::Tensor flat() const;
  /// The vectors among them [total - matrices_end], which every rank always has.
  kernels::Tensor vectors() const;
  /// In the storage type; matrices are undefined after release_matrices().
  const Weights& weights() const { return weights_; }
  /// One parameter by its published name, in its own shape flattened to [size]. Throws std::logic_error for a matrix
  /// after release_matrices().
  kernels::Tensor parameter(const std::string& name) const;
  /// The weights as a pass uses them: weights() itself, or with bf16 copies of the matrices, which refresh_operands()
  /// last made.
  const Weights& operands() const { return options_.operands == kernels::DType::bf16 ? operand_weights_ : weights_; }
  /// The matrices of operands() [layout.matrices_end()].
  kernels::Tensor operand_matrices() const;
  /// To be called after the parameters changed by other means than initialize() or load(). Throws std::logic_error
  /// after release_matrices(): who has the matrices then writes operand_matrices().
  void refresh_operands();

  /// Lets go of the matrices in f32: only their bf16 copies and the vectors stay. For a rank of many, on which the
  /// optimizer has a share of the f32 ones and nobody has all. Throws std::logic_error for a model without bf16 copies.
  void release_matrices();
  bool has_matrices() const { return !released_; }

 private:
  ModelConfig config_;
  ModelOptions options_;
  ReadPlan plan_;
  ParameterLayout layout_;
  kernels::OwnedTensor flat_;  // after release_matrices() the vectors alone
  bool released_ = false;
  Weights weights_;
  kernels::OwnedTensor operand_flat_;
  Weights operand_weights_;
};

/// A change of one read after its weights are known: h = sum_i edited_i v_i over the read's sources and `extra`. What
/// does not fit (a read that is not routed, an extra of another size, type or device) is std::invalid_argument.
struct ReadEdit {
  /// Values that every token sees beside the read's own sources: each [d], in the activations' type, on the model's
  /// device.
  std::vector<kernels::Tensor> extra;
  /// From alpha [tokens, n+1], which the read just computed (sources in the order of plan().reads[read].columns), to
  /// the weights that it uses, edited [tokens, n+1+extras], extras last; every element is to be written, nobody
  /// normalises them. On the host.
  std::function<void(std::span<const double> alpha, std::span<double> edited)> alpha;
};

/// A change of the routing, the one mechanism behind every bias, mask and ablation.
struct RoutingIntervention {
  /// logit_bias[read][column], added before the softmax; -inf masks. Empty: none. Columns a read lacks are ignored.
  /// A read whose every source would be masked is an error (std::invalid_argument).
  std::vector<std::vector<double>> logit_bias;
  /// read -> alpha [tokens, n+1] in the model's storage type and on its device, in place of the softmax's result.
  std::map<int, kernels::Tensor> alpha_override;
  /// read -> edit of its weights, after logit_bias and alpha_override. No backward pass follows such a forward pass
  /// (std::logic_error).
  std::map<int, ReadEdit> edits;
};

/// How the reads of a group, which share their completed sources, are computed: each for itself, or all of them at once
/// as far as that goes (MATH.md, "Cost"). `automatic`: at once on CUDA where that moves fewer bytes.
enum class ReadPhases { automatic, fused, two };

/// What a training pass computes a second time in its backward pass instead of keeping it for every layer; each level
/// includes those before it: the MLP's activation, the normalised inputs of sublayers, attention's inputs and outputs.
enum class Recompute { none, swiglu, norms, attention };

/// How a pass goes about its work; none of it changes what is computed beyond rounding.
struct PassOptions {
  ReadPhases reads = ReadPhases::automatic;
  Recompute recompute = Recompute::none;
  /// Pass::accumulate() is recorded once as a CUDA graph and replayed. CUDA only.
  bool graph = false;
};

/// What a caller of Pass::accumulate() is told while the pass goes on, in elements of the flat arrays' matrices (which
/// end at ParameterLayout::matrices_end()). A pass with hooks runs its work as it comes, also where
/// PassOptions::graph would replay a recording.
struct PassHooks {
  /// Before work that reads the matrices' parameters up to element `end` is put on the stream. Rises.
  std::function<void(std::int64_t end)> needed;
  /// After the last work that adds to the matrices' gradients from element `begin` on was put on the stream. Falls,
  /// to 0 at the end; the vectors are complete when accumulate() returns.
  std::function<void(std::int64_t begin)> complete;
};

/// Activations for batches of `batch` sequences of `seq_len` tokens, and the passes over them.
class Pass {
 public:
  enum class Kind { infer, train };
  Pass(const Model& model, std::int64_t batch, std::int64_t seq_len, Kind kind, const PassOptions& options = {});

  /// What such a pass would take, by part. Nothing is allocated.
  static std::vector<kernels::Arena::Part> plan_memory(const ModelConfig& config, const ModelOptions& model,
                                                       std::int64_t batch, std::int64_t seq_len, Kind kind,
                                                       const PassOptions& options = {});

  /// Runs the model on ids [batch * seq_len] up to the final norm. With `first_read` > 0 everything before that read is
  /// taken over from the previous call, which must have had the same ids and the same intervention on earlier reads
  /// (what the intervention says of those is not looked at).
  /// Throws Error for an id outside the vocabulary.
  void forward(std::span<const std::int32_t> ids, const RoutingIntervention* intervention = nullptr,
               int first_read = 0);

  /// After forward(): negative log-likelihood (nats) of targets [batch * seq_len] at each token, 0 where a target is
  /// -1.
  void nll(std::span<const std::int32_t> targets, std::span<float> out);
  /// The same, summed over all tokens.
  double loss(std::span<const std::int32_t> targets);
  /// After forward(): logits of tokens [begin, end) into out [end - begin, vocab], on any device.
  void logits(std::int64_t begin, std::int64_t end, kernels::Tensor out);
  /// After forward() of a training pass: adds `scale` times the gradient of the summed nll to `gradients` (flat, laid
  /// out like the parameters) and the summed nll (not scaled), in nats, to what take_loss() will return. On CUDA this
  /// and forward() return before the work is done.
  void backward(std::span<const std::int32_t> targets, double scale, kernels::Tensor gradients);
  /// forward() and backward() of one micro-batch.
  void accumulate(std::span<const std::int32_t> ids, std::span<const std::int32_t> targets, double scale,
                  kernels::Tensor gradients, const PassHooks& hooks = {});
  /// The nll that backward() and accumulate() summed since the last call. Waits for them.
  double take_loss();

  /// Of the last forward(), for a routed read: alpha [tokens, n+1], sources in the order of plan().reads[read].columns;
  /// of an edited read its own, before the edit.
  kernels::Tensor alpha(int read) const;
  /// And (mean(v_i^2) + eps)^(-1/2) of each of those sources, n+1 tensors [tokens].
  std::vector<kernels::Tensor> source_inv_rms(int read) const;
  /// And the read's partial, its current source [tokens, d]; every completed source is some read's partial.
  kernels::Tensor partial(int read) const;
  /// Of the last backward(), for a routed read: the gradient [tokens, n+1] of scale * (summed nll) with respect to the
  /// logits, in the order of alpha().
  kernels::Tensor dlogit(int read) const;

  std::int64_t batch() const;
  std::int64_t seq_len() const;
  std::int64_t tokens() const;
  const kernels::Stream& stream() const;
  /// What the pass takes, by part.
  const std::vector<kernels::Arena::Part>& memory() const;

  Pass(Pass&&) noexcept;
  ~Pass();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace routescope::model
