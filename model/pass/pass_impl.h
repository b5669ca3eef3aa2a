// What a pass is made of: its tensors, its stream, and the steps of the forward and backward pass (pass_forward.cpp,
// pass_backward.cpp).
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/range.h"
#include "model/pass/activations.h"
#include "model/pass/model.h"
#include "model/pass/upload.h"

namespace routescope::model {

inline constexpr auto kNo = kernels::Transpose::no;
inline constexpr auto kYes = kernels::Transpose::yes;

/// Where the matrices lie in the flat array, as the pass comes to them: an element before which or from which on a
/// sublayer's or the head's are.
struct MatrixPlaces {
  struct Layer {
    std::int64_t attention, mlp, end;
  };
  std::int64_t embedding_end;
  std::vector<Layer> layers;
  std::int64_t end;  // of all; an untied head lies between the last layer and here

  explicit MatrixPlaces(const ParameterLayout& layout, std::int64_t num_layers);
};

struct Pass::Impl {
  static constexpr int no_read = std::numeric_limits<int>::max();
  /// What edit_read() works in, allocated when it first runs: the state of the read with edited weights, whose own
  /// state stays as it is.
  struct EditScratch {
    kernels::OwnedTensor inv_rms, h_inv_rms, zero_ids;  // [tokens]
    kernels::OwnedTensor score, alpha, given;           // [tokens, columns]
    std::vector<kernels::OwnedTensor> extra;            // [tokens, d] each
    std::int64_t columns = 0;
  };

  const Model& model;
  const ModelConfig& config;
  const ReadPlan& plan;
  kernels::AttentionShape shape;
  MatrixPlaces places;
  Kind kind;
  PassOptions options;
  kernels::Arena arena;
  Activations act;
  kernels::OwnedStream own_stream;
  kernels::Stream stream;
  Upload upload;
  std::vector<bool> alpha_is_given;  // by read, in the last forward pass
  std::vector<double> logit_bias;    // of all reads, as it lies on the device
  bool ran = false;
  int first_edited = no_read;      // the earliest read whose edited weights made what the pass holds
  kernels::RecordedWork recorded;  // accumulate() with the arguments below
  double recorded_scale = 0;
  void* recorded_gradients = nullptr;
  int accumulated = 0;
  EditScratch edit_scratch;

  Impl(const Model& model_, const kernels::AttentionShape& shape_, Kind kind_, const PassOptions& options_,
       std::size_t bytes)
      : model(model_),
        config(model_.config()),
        plan(model_.plan()),
        shape(shape_),
        places(model_.layout(), model_.config().num_hidden_layers),
        kind(kind_),
        options(options_),
        arena(model_.options().device, bytes),
        own_stream(model_.options().device),
        upload(model_.options().device, static_cast<std::size_t>(shape_.tokens()) * sizeof(std::int32_t)),
        alpha_is_given(plan.reads.size(), false) {
    act.take(arena, config, plan, model.options(), shape, kind == Kind::train, options);
    stream = {.device = model.options().device,
              .handle = own_stream.handle(),
              .workspace = static_cast<std::byte*>(act.workspace.data),
              .workspace_size = act.workspace.bytes()};
    // No value is NaN: the first set_logit_bias() writes every read's.
    logit_bias.assign(static_cast<std::size_t>(act.logit_bias.numel()), std::nan(""));
  }

  int last_read() const { return static_cast<int>(plan.reads.size()) - 1; }
  const Read& read(int r) const { return plan.reads[static_cast<std::size_t>(r)]; }
  ReadActivations& at(int r) { return act.reads[static_cast<std::size_t>(r)]; }

  /// The gain of the RMSNorm that follows a read, of the weights or of their gradients.
  kernels::Tensor norm_gain(const Weights& weights, int r) const {
    if (read(r).sublayer == Sublayer::final) return weights.final_norm;
    const LayerWeights& layer = weights.layers[static_cast<std::size_t>(read(r).layer)];
    return read(r).sublayer == Sublayer::attn ? layer.attn_norm : layer.mlp_norm;
  }

  struct SourceTensors {
    std::vector<kernels::Tensor> values, inv_rms;
    kernels::AttnResSources view() const { return {values, inv_rms}; }
  };
  SourceTensors sources_of(int r) {
    SourceTensors out;
    for (int source : read(r).sources) {
      out.values.push_back(at(source).state.partial);
      out.inv_rms.push_back(at(source).state.inv_rms);
    }
    return out;
  }
  kernels::AttnResParams params_of(int r) {
    const ReadWeights& weights = model.weights().reads[static_cast<std::size_t>(r)];
    return {.query = weights.query,
            .key_gain = weights.key_gain,
            .bias = weights.bias,
            .logit_bias = at(r).logit_bias,
            .norm_gain = norm_gain(model.weights(), r),
            .eps = config.rms_norm_eps};
  }

  // ---- forward ----

  /// What is added to the logits of each read from `first_read` on, in the order of act.logit_bias.
  std::vector<double> wanted_logit_bias(int first_read, const RoutingIntervention* intervention) const;

  void set_logit_bias(int first_read, const RoutingIntervention* intervention);

  kernels::AttnResPrepared prepared_of(int r, int first) {
    kernels::AttnResPrepared out = act.prepared[static_cast<std::size_t>(r - first)];
    out.score = at(r).state.score;
    return out;
  }

  /// Phase one of the reads first .. first + count - 1, of one group.
  void prepare_reads(int first, int count);

  /// p_r, alpha and the normalised input of sublayer r. y_{r-1} lies in partial r already, where p_r takes its place.
  /// When a pass is taken up at this read, p_r itself lies there: nothing is to be added. `prepared_first`: the first
  /// of the reads that were prepared together with this one, or -1.
  void forward_read(int r, kernels::Tensor alpha_override, bool taken_up, int prepared_first);

  /// Throws std::invalid_argument for an edit that does not fit the model.
  void check_edits(const RoutingIntervention& intervention) const;

  /// x of read r once more, with edited weights; forward_read() has run.
  void edit_read(int r, const ReadEdit& edit);

  void forward_attention(std::int64_t l, kernels::Tensor y, kernels::Tensor x);

  /// Of attention everything between its products.
  void mix_tokens(const LayerActivations& a, const LayerWeights& weight);

  void forward_mlp(std::int64_t l, kernels::Tensor y, kernels::Tensor x);

  void set_ids(std::span<const std::int32_t> ids);

  /// From act.ids (or from what an earlier pass left before `first_read`) to the final norm. Only puts work on the
  /// stream.
  void run(const RoutingIntervention* intervention, int first_read, const PassHooks& hooks);

  void forward(std::span<const std::int32_t> ids, const RoutingIntervention* intervention, int first_read);

  // ---- head ----

  void set_targets(std::span<const std::int32_t> targets);

  /// Calls body(begin, end, logits of those tokens) over all tokens.
  template <class Body>
  void for_each_head_chunk(Body body) {
    const kernels::Tensor x = at(last_read()).x;
    for (std::int64_t begin = 0; begin < shape.tokens(); begin += act.head_rows) {
      const std::int64_t end = std::min(begin + act.head_rows, shape.tokens());
      const kernels::Tensor logits = act.logits.rows(0, end - begin);
      kernels::matmul(logits, x.rows(begin, end), kNo, model.operands().head, kYes, false, stream);
      body(begin, end, logits);
    }
  }

  void forward_loss(std::span<const std::int32_t> targets);

  // ---- backward ----

  /// The loss, and the gradients of the head and of the final norm's output.
  void backward_head(double scale, const Weights& gradients);

  /// dy -> dx, and the weights' gradients.
  void backward_attention(std::int64_t l, kernels::Tensor x, const Weights& gradients);

  void backward_mlp(std::int64_t l, kernels::Tensor x, const Weights& gradients);

  /// dx of read r -> dp (added), and what the read owes its completed sources, kept for settle_group().
  void backward_read(int r, const Weights& gradients, int group_first);

  /// All reads of a group have gone backward: their gradients of the sources they share are added at once.
  void settle_group(int first, int last);

  /// x of read r once more, from its partial and its weights on the sources.
  void recompute_input(int r);

  /// Only puts work on the stream.
  void backward(double scale, const Weights& gradients, const PassHooks& hooks);

  void accumulate(double scale, kernels::Tensor gradients, const PassHooks& hooks);

  /// The sum in act.loss, which becomes 0.
  double take_loss();
};

}  // namespace routescope::model
