// The forward and backward pass of a model over a batch of fixed geometry.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "kernels/memory.h"
#include "kernels/ops.h"
#include "model/pass/intervention.h"
#include "model/pass/model.h"

namespace routescope::model {

/// How the reads of a group, which share their completed sources, are computed (MATH.md, "Cost"): `fused`, each alone;
/// `two`, in two phases, where sources allow it; `automatic`, in two phases on CUDA where they move fewer bytes.
enum class ReadPhases { automatic, fused, two };

/// What a training pass computes a second time in its backward pass instead of keeping it for every layer; each level
/// includes those before it: the MLP's activation, the normalised inputs of sublayers, attention's inputs and outputs.
enum class Recompute { none, swiglu, norms, attention };

/// How a pass computes. No option changes a result by more than rounding.
struct PassOptions {
  ReadPhases reads = ReadPhases::automatic;
  Recompute recompute = Recompute::none;
  /// Pass::accumulate() is recorded once as a CUDA graph and replayed. CUDA only.
  bool graph = false;
};

/// Calls during Pass::accumulate(), with elements of the flat arrays' matrices (which end at
/// ParameterLayout::matrices_end()). A pass with hooks is never recorded, whatever PassOptions::graph says.
struct PassHooks {
  /// Called before work that reads the matrices' parameters up to element `end` is put on the stream. `end` rises.
  std::function<void(std::int64_t end)> needed;
  /// Called after the last work that adds to the matrices' gradients from element `begin` on was put on the stream.
  /// `begin` falls, to 0 at the end; the vectors are complete when accumulate() returns.
  std::function<void(std::int64_t begin)> complete;
};

/// Called in Pass::backward() when two gradients of scale * (summed nll) have been put on the stream: dx [tokens, d]
/// with respect to x of `read`, the normalised input of the sublayer that it feeds, and dy [tokens, d] with respect to
/// the sublayer's output; undefined for the last read, which feeds the head. They are valid until the call returns.
using AtRead = std::function<void(int read, kernels::Tensor dx, kernels::Tensor dy)>;

/// Activations for batches of `batch` sequences of `seq_len` tokens, and the passes over them.
class Pass {
 public:
  enum class Kind { infer, train };
  Pass(const Model& model, std::int64_t batch, std::int64_t seq_len, Kind kind, const PassOptions& options = {});

  /// What such a pass would take, by part. Nothing is allocated.
  static std::vector<kernels::Arena::Part> plan_memory(const ModelConfig& config, const ModelOptions& model,
                                                       std::int64_t batch, std::int64_t seq_len, Kind kind,
                                                       const PassOptions& options = {});

  /// Runs the model on ids [batch * seq_len] up to the final norm. With `first_read` > 0 the pass resumes at that read
  /// and keeps what the previous call computed before it; that call must have had the same ids and the same
  /// intervention on earlier reads (this call ignores what the intervention says of them).
  /// Throws Error for an id outside the vocabulary.
  void forward(std::span<const std::int32_t> ids, const RoutingIntervention* intervention = nullptr,
               int first_read = 0);
  /// The same with an intervention of its own for every sequence of the batch [batch], whose tensors and functions see
  /// the tokens of that sequence only: the same bits as `batch` passes of one sequence each, as far as matrix products
  /// do not depend on their size. Of passes that infer, with ReadPhases::fused (std::invalid_argument).
  void forward_each(std::span<const std::int32_t> ids, std::span<const RoutingIntervention> of_sequences,
                    int first_read = 0);

  /// After forward() without an intervention: what the head sees if only the sublayers of `reads`, ascending, respond
  /// to the intervention, each with its sources intact, and the last read then sees the change (MATH.md, "Routes as
  /// edges": direct). nll(), loss() and logits() are then of it; partials stay intact, so that this can be called again
  /// and forward() can resume. The intervention counts at `reads` alone.
  void forward_direct(const RoutingIntervention& intervention, std::span<const int> reads);

  /// After forward(): negative log-likelihood (nats) of targets [batch * seq_len] at each token, 0 where a target is
  /// -1.
  void nll(std::span<const std::int32_t> targets, std::span<float> out);
  /// The same, summed over all tokens.
  double loss(std::span<const std::int32_t> targets);
  /// After forward(): logits of tokens [begin, end) into out [end - begin, vocab], on any device.
  void logits(std::int64_t begin, std::int64_t end, kernels::Tensor out);
  /// After forward() of a training pass: adds `scale` times the gradient of the summed nll to `gradients` (flat, laid
  /// out like the parameters) and the summed nll (not scaled), in nats, to what take_loss() will return. On CUDA this
  /// and forward() return before the work is done. One forward() serves several calls. `at_read` is called at each
  /// read, from the last to the first.
  void backward(std::span<const std::int32_t> targets, double scale, kernels::Tensor gradients,
                const AtRead& at_read = {});
  /// forward() and backward() of one micro-batch.
  void accumulate(std::span<const std::int32_t> ids, std::span<const std::int32_t> targets, double scale,
                  kernels::Tensor gradients, const PassHooks& hooks = {});
  /// y [tokens, d] = what the sublayer that `read` feeds makes of x [tokens, d], an operand. It writes over what the
  /// pass keeps of the sublayer: forward() has to run again before backward().
  void sublayer(int read, kernels::Tensor y, kernels::Tensor x);
  /// The nll that backward() and accumulate() summed since the last call. Waits for them.
  double take_loss();

  /// Of the last forward(), for a routed read: alpha [tokens, n+1], sources in the order of plan().reads[read].columns.
  /// For an edited read these are the weights before the edit.
  kernels::Tensor alpha(int read) const;
  /// What the softmax took to make them, in host memory: [tokens, n+1] s_i <u, v_i> + B_i, -inf where masked.
  std::vector<double> read_logits(int read) const;
  /// The values v_i of these sources: n+1 tensors [tokens, d].
  std::vector<kernels::Tensor> source_values(int read) const;
  /// (mean(v_i^2) + eps)^(-1/2) of each of them: n+1 tensors [tokens].
  std::vector<kernels::Tensor> source_inv_rms(int read) const;
  /// The read's partial, its current source [tokens, d]; every completed source is some read's partial.
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
