// The forward and backward pass, in the order of MATH.md: read r feeds sublayer r, whose output goes into partial r
// + 1.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "data/error.h"
#include "model/activations.h"
#include "model/model.h"

namespace routescope {

namespace {

constexpr auto kNo = Transpose::no;
constexpr auto kYes = Transpose::yes;

}  // namespace

struct Pass::Impl {
  const Model& model;
  const ModelConfig& config;
  const ReadPlan& plan;
  AttentionShape shape;
  Kind kind;
  Arena arena;
  Activations act;
  Stream stream;
  std::vector<bool> alpha_is_given;  // by read, in the last forward pass
  bool ran = false;

  Impl(const Model& model_, const AttentionShape& shape_, Kind kind_, std::size_t bytes)
      : model(model_),
        config(model_.config()),
        plan(model_.plan()),
        shape(shape_),
        kind(kind_),
        arena(model_.options().device, bytes),
        alpha_is_given(plan.reads.size(), false) {
    act.take(arena, model, shape, kind == Kind::train);
    stream = {.device = model.options().device,
              .workspace = static_cast<std::byte*>(act.workspace.data),
              .workspace_size = act.workspace.bytes()};
  }

  int last_read() const { return static_cast<int>(plan.reads.size()) - 1; }
  const Read& read(int r) const { return plan.reads[static_cast<std::size_t>(r)]; }
  ReadActivations& at(int r) { return act.reads[static_cast<std::size_t>(r)]; }

  /// The gain of the RMSNorm that follows a read, of the weights or of their gradients.
  Tensor norm_gain(const Weights& weights, int r) const {
    if (read(r).sublayer == Sublayer::final) return weights.final_norm;
    const LayerWeights& layer = weights.layers[static_cast<std::size_t>(read(r).layer)];
    return read(r).sublayer == Sublayer::attn ? layer.attn_norm : layer.mlp_norm;
  }

  struct SourceTensors {
    std::vector<Tensor> values, inv_rms;
    AttnResSources view() const { return {values, inv_rms}; }
  };
  SourceTensors sources_of(int r) {
    SourceTensors out;
    for (int source : read(r).sources) {
      out.values.push_back(at(source).state.partial);
      out.inv_rms.push_back(at(source).state.inv_rms);
    }
    return out;
  }
  AttnResParams params_of(int r) {
    const ReadWeights& weights = model.weights().reads[static_cast<std::size_t>(r)];
    return {.query = weights.query,
            .key_gain = weights.key_gain,
            .bias = weights.bias,
            .logit_bias = at(r).logit_bias,
            .norm_gain = norm_gain(model.weights(), r),
            .eps = config.rms_norm_eps};
  }

  // ---- forward ----

  void set_logit_bias(int r, const RoutingIntervention* intervention) {
    const std::vector<int>& columns = read(r).columns;
    std::vector<double> bias(columns.size(), 0.0);
    if (!config.has_learned_bias() && columns.size() > 1) bias.back() = config.recency_bias;
    if (intervention && !intervention->logit_bias.empty()) {
      const auto& row = intervention->logit_bias.at(static_cast<std::size_t>(r));
      for (std::size_t i = 0; i < columns.size(); ++i) bias[i] += row.at(static_cast<std::size_t>(columns[i]));
    }
    if (std::none_of(bias.begin(), bias.end(), [](double b) { return b > -INFINITY; }))
      throw std::invalid_argument("logit_bias: read " + read(r).name + " is left without a source");
    const Tensor& dst = at(r).logit_bias;
    for (std::size_t i = 0; i < bias.size(); ++i) {
      if (dst.dtype == DType::f64)
        dst.as<double>()[i] = bias[i];
      else
        dst.as<float>()[i] = static_cast<float>(bias[i]);
    }
  }

  /// p_r, alpha and the normalised input of sublayer r. y_{r-1} lies in partial r already, where p_r takes its place.
  /// When a pass is taken up at this read, p_r itself lies there: nothing is to be added.
  void forward_read(int r, const RoutingIntervention* intervention, bool taken_up) {
    ReadActivations& a = at(r);
    const Tensor previous = read(r).continues && !taken_up ? at(r - 1).state.partial : Tensor{};
    alpha_is_given[static_cast<std::size_t>(r)] = false;
    if (!read(r).routed) {
      add_rms_norm_forward(a.x, a.state.partial, a.state.inv_rms, previous, a.state.partial,
                           norm_gain(model.weights(), r), config.rms_norm_eps, stream);
      return;
    }
    Tensor alpha_override;
    if (intervention) {
      if (const auto found = intervention->alpha_override.find(r); found != intervention->alpha_override.end()) {
        alpha_override = found->second;
        alpha_is_given[static_cast<std::size_t>(r)] = true;
      }
    }
    set_logit_bias(r, intervention);
    const SourceTensors sources = sources_of(r);
    attn_res_forward(a.x, a.state, previous, a.state.partial, sources.view(), params_of(r), alpha_override, stream);
  }

  void forward_attention(std::int64_t l, Tensor y, Tensor x) {
    const auto index = static_cast<std::size_t>(l);
    const LayerWeights &operand = model.operands().layers[index], &weight = model.weights().layers[index];
    LayerActivations& a = act.layers[index];
    matmul(a.qkv_raw, x, kNo, operand.qkv, kYes, false, stream);
    qk_norm_rope_forward(a.qkv, a.qkv_raw, weight.q_norm, weight.k_norm, shape, config.rope_theta, config.rms_norm_eps,
                         stream);
    attention_forward(a.attn_out, a.lse, a.qkv, shape, stream);
    matmul(y, a.attn_out, kNo, operand.o, kYes, false, stream);
  }

  void forward_mlp(std::int64_t l, Tensor y, Tensor x) {
    const LayerWeights& operand = model.operands().layers[static_cast<std::size_t>(l)];
    LayerActivations& a = act.layers[static_cast<std::size_t>(l)];
    matmul(a.gate_up, x, kNo, operand.gate_up, kYes, false, stream);
    swiglu_forward(a.act, a.gate_up, stream);
    matmul(y, a.act, kNo, operand.down, kYes, false, stream);
  }

  void forward(std::span<const std::int32_t> ids, const RoutingIntervention* intervention, int first_read) {
    if (static_cast<std::int64_t>(ids.size()) != shape.tokens())
      throw std::invalid_argument("forward: ids do not fit the pass");
    if (first_read < 0 || first_read > last_read() || (first_read > 0 && !ran))
      throw std::invalid_argument("forward: nothing to take up at this read");
    if (first_read == 0) {
      for (std::size_t i = 0; i < ids.size(); ++i)
        if (ids[i] < 0 || ids[i] >= config.vocab_size)
          throw Error("token {}: found id {}, expected 0 to {} (the vocabulary)", i, ids[i], config.vocab_size - 1);
      std::memcpy(act.ids.data, ids.data(), ids.size_bytes());
      embedding_forward(at(0).state.partial, act.ids, model.weights().embedding, stream);
    }
    for (int r = first_read; r <= last_read(); ++r) {
      forward_read(r, intervention, first_read > 0 && r == first_read);
      if (read(r).sublayer == Sublayer::attn)
        forward_attention(read(r).layer, at(r + 1).state.partial, at(r).x);
      else if (read(r).sublayer == Sublayer::mlp)
        forward_mlp(read(r).layer, at(r + 1).state.partial, at(r).x);
    }
    ran = true;
  }

  // ---- head ----

  void set_targets(std::span<const std::int32_t> targets) {
    if (!ran) throw std::invalid_argument("no forward pass has run");
    if (static_cast<std::int64_t>(targets.size()) != shape.tokens())
      throw std::invalid_argument("targets do not fit the pass");
    for (std::size_t i = 0; i < targets.size(); ++i)
      if (targets[i] < -1 || targets[i] >= config.vocab_size)
        throw Error("target {}: found id {}, expected -1 to {} (the vocabulary)", i, targets[i], config.vocab_size - 1);
    std::memcpy(act.targets.data, targets.data(), targets.size_bytes());
  }

  /// Calls body(begin, end, logits of those tokens) over all tokens.
  template <class Body>
  void for_each_head_chunk(Body body) {
    const Tensor x = at(last_read()).x;
    for (std::int64_t begin = 0; begin < shape.tokens(); begin += act.head_rows) {
      const std::int64_t end = std::min(begin + act.head_rows, shape.tokens());
      const Tensor logits = act.logits.rows(0, end - begin);
      matmul(logits, x.rows(begin, end), kNo, model.operands().head, kYes, false, stream);
      body(begin, end, logits);
    }
  }

  void forward_loss(std::span<const std::int32_t> targets) {
    set_targets(targets);
    for_each_head_chunk([&](std::int64_t begin, std::int64_t end, Tensor logits) {
      cross_entropy(act.nll.rows(begin, end), Tensor{}, logits, act.targets.rows(begin, end), 0.0, stream);
    });
  }

  // ---- backward ----

  /// The loss, and the gradients of the head and of the final norm's output.
  void backward_head(double scale, const Weights& gradients) {
    const Tensor x = at(last_read()).x;
    for_each_head_chunk([&](std::int64_t begin, std::int64_t end, Tensor logits) {
      const Tensor dlogits = act.dlogits.rows(0, end - begin);
      cross_entropy(act.nll.rows(begin, end), dlogits, logits, act.targets.rows(begin, end), scale, stream);
      matmul(act.backward.dx.rows(begin, end), dlogits, kNo, model.operands().head, kNo, false, stream);
      matmul(gradients.head, dlogits, kYes, x.rows(begin, end), kNo, true, stream);
    });
  }

  /// dy -> dx, and the weights' gradients.
  void backward_attention(std::int64_t l, Tensor x, const Weights& gradients) {
    const auto index = static_cast<std::size_t>(l);
    const LayerWeights &operand = model.operands().layers[index], &weight = model.weights().layers[index];
    const LayerWeights& gradient = gradients.layers[index];
    const LayerActivations& a = act.layers[index];
    const BackwardScratch& b = act.backward;
    matmul(b.dattn_out, b.dy, kNo, operand.o, kNo, false, stream);
    matmul(gradient.o, b.dy, kYes, a.attn_out, kNo, true, stream);
    attention_backward(b.dqkv, b.dattn_out, a.attn_out, a.lse, a.qkv, shape, stream);
    qk_norm_rope_backward(b.dqkv_operand, gradient.q_norm, gradient.k_norm, b.dqkv, a.qkv_raw, weight.q_norm,
                          weight.k_norm, shape, config.rope_theta, config.rms_norm_eps, stream);
    matmul(b.dx, b.dqkv_operand, kNo, operand.qkv, kNo, false, stream);
    matmul(gradient.qkv, b.dqkv_operand, kYes, x, kNo, true, stream);
  }

  void backward_mlp(std::int64_t l, Tensor x, const Weights& gradients) {
    const auto index = static_cast<std::size_t>(l);
    const LayerWeights& operand = model.operands().layers[index];
    const LayerWeights& gradient = gradients.layers[index];
    const LayerActivations& a = act.layers[index];
    const BackwardScratch& b = act.backward;
    matmul(b.dact, b.dy, kNo, operand.down, kNo, false, stream);
    matmul(gradient.down, b.dy, kYes, a.act, kNo, true, stream);
    swiglu_backward(b.dgate_up, b.dact, a.gate_up, stream);
    matmul(b.dx, b.dgate_up, kNo, operand.gate_up, kNo, false, stream);
    matmul(gradient.gate_up, b.dgate_up, kYes, x, kNo, true, stream);
  }

  /// dx of read r -> dp (added), and what the read owes its completed sources, kept for settle_group().
  void backward_read(int r, const Weights& gradients, int group_first) {
    ReadActivations& a = at(r);
    const BackwardScratch& b = act.backward;
    const Tensor gain_gradient = norm_gain(gradients, r);
    if (!read(r).routed) {
      add_rms_norm_backward(b.dp, gain_gradient, b.dx, a.state.partial, a.state.inv_rms, norm_gain(model.weights(), r),
                            stream);
      return;
    }
    const ReadWeights& g = gradients.reads[static_cast<std::size_t>(r)];
    const SourceTensors sources = sources_of(r);
    attn_res_backward(b.dh[static_cast<std::size_t>(r - group_first)], b.dlogit[static_cast<std::size_t>(r)], b.dp,
                      {.query = g.query, .key_gain = g.key_gain, .bias = g.bias, .norm_gain = gain_gradient}, b.dx,
                      a.state, sources.view(), params_of(r), alpha_is_given[static_cast<std::size_t>(r)], stream);
  }

  /// All reads of a group have gone backward: their gradients of the sources they share are added at once.
  void settle_group(int first, int last) {
    const SourceTensors sources = sources_of(first);
    if (sources.values.empty()) return;
    std::vector<Tensor> dsources;
    for (int source : read(first).sources) dsources.push_back(act.backward.dsource[static_cast<std::size_t>(source)]);
    std::vector<AttnResDeferred> reads;
    for (int r = first; r <= last; ++r) {
      const ReadWeights& weights = model.weights().reads[static_cast<std::size_t>(r)];
      reads.push_back({.dh = act.backward.dh[static_cast<std::size_t>(r - first)],
                       .dlogit = act.backward.dlogit[static_cast<std::size_t>(r)],
                       .alpha = at(r).state.alpha,
                       .score = at(r).state.score,
                       .query = weights.query,
                       .key_gain = weights.key_gain});
    }
    attn_res_backward_sources(dsources, reads, sources.view(), stream);
  }

  void backward(double scale, const Weights& gradients) {
    const BackwardScratch& b = act.backward;
    backward_head(scale, gradients);
    fill(b.dp, 0.0, stream);
    for (const Tensor& dsource : b.dsource)
      if (dsource) fill(dsource, 0.0, stream);

    int group_last = last_read();
    for (int r = last_read(); r >= 0; --r) {
      int group_first = r;
      while (!read(group_first).first_of_group) --group_first;
      backward_read(r, gradients, group_first);
      if (read(r).routed && r == group_first) {
        settle_group(group_first, group_last);
        group_last = r - 1;
      } else if (!read(r).routed) {
        group_last = r - 1;
      }
      if (const Tensor& dsource = b.dsource[static_cast<std::size_t>(r)]) add(b.dp, dsource, stream);
      if (r == 0) break;
      if (b.dy.data != b.dp.data) cast(b.dy, b.dp, stream);
      const Read& feeder = read(r - 1);
      if (feeder.sublayer == Sublayer::attn)
        backward_attention(feeder.layer, at(r - 1).x, gradients);
      else
        backward_mlp(feeder.layer, at(r - 1).x, gradients);
      if (!read(r).continues) fill(b.dp, 0.0, stream);
    }
    embedding_backward(gradients.embedding, b.dp, act.ids, stream);
  }

  double summed_nll() const {
    double sum = 0;
    for (std::int64_t t = 0; t < shape.tokens(); ++t)
      sum += act.nll.dtype == DType::f64 ? act.nll.as<double>()[t] : static_cast<double>(act.nll.as<float>()[t]);
    return sum;
  }
};

Pass::Pass(const Model& model, std::int64_t batch, std::int64_t seq_len, Kind kind) {
  if (batch < 1 || seq_len < 1) throw std::invalid_argument("a pass needs at least one sequence of at least one token");
  const ModelConfig& config = model.config();
  const AttentionShape shape{batch, seq_len, config.num_attention_heads, config.num_key_value_heads, config.head_dim};
  Arena planner(model.options().device);
  Activations().take(planner, model, shape, kind == Kind::train);
  impl_ = std::make_unique<Impl>(model, shape, kind, planner.bytes());
}

Pass::Pass(Pass&&) noexcept = default;
Pass::~Pass() = default;

void Pass::forward(std::span<const std::int32_t> ids, const RoutingIntervention* intervention, int first_read) {
  impl_->forward(ids, intervention, first_read);
}

void Pass::nll(std::span<const std::int32_t> targets, std::span<float> out) {
  if (out.size() != targets.size()) throw std::invalid_argument("nll: out and targets differ in size");
  impl_->forward_loss(targets);
  cast(Tensor(out.data(), DType::f32, Device::cpu, {static_cast<std::int64_t>(out.size())}), impl_->act.nll,
       impl_->stream);
}

void Pass::logits(std::int64_t begin, std::int64_t end, Tensor out) {
  if (!impl_->ran) throw std::invalid_argument("no forward pass has run");
  matmul(out, impl_->at(impl_->last_read()).x.rows(begin, end), kNo, impl_->model.operands().head, kYes, false,
         impl_->stream);
}

double Pass::loss(std::span<const std::int32_t> targets) {
  impl_->forward_loss(targets);
  return impl_->summed_nll();
}

double Pass::backward(std::span<const std::int32_t> targets, double scale, Tensor gradients) {
  if (impl_->kind != Kind::train) throw std::invalid_argument("backward: this pass keeps no activations");
  impl_->set_targets(targets);
  impl_->backward(scale, Weights(impl_->config, impl_->model.layout(), gradients));
  return impl_->summed_nll();
}

Tensor Pass::alpha(int read) const {
  return impl_->at(read).state.alpha;
}

std::vector<Tensor> Pass::source_inv_rms(int read) const {
  std::vector<Tensor> out = impl_->sources_of(read).inv_rms;
  out.push_back(impl_->at(read).state.inv_rms);
  return out;
}

std::int64_t Pass::batch() const {
  return impl_->shape.batch;
}
std::int64_t Pass::seq_len() const {
  return impl_->shape.seq_len;
}
std::int64_t Pass::tokens() const {
  return impl_->shape.tokens();
}
const Stream& Pass::stream() const {
  return impl_->stream;
}
const std::vector<Arena::Part>& Pass::memory() const {
  return impl_->arena.parts();
}

}  // namespace routescope
