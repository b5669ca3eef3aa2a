// The forward and backward pass, in the order of MATH.md: read r feeds sublayer r, whose output goes into partial r
// + 1.
#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "data/error.h"
#include "kernels/range.h"
#include "model/activations.h"
#include "model/model.h"
#include "model/upload.h"

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
  PassOptions options;
  Arena arena;
  Activations act;
  OwnedStream own_stream;
  Stream stream;
  Upload upload;
  std::vector<bool> alpha_is_given;  // by read, in the last forward pass
  std::vector<double> logit_bias;    // of all reads, as it lies on the device
  bool ran = false;
  RecordedWork recorded;  // accumulate() with the arguments below
  double recorded_scale = 0;
  void* recorded_gradients = nullptr;
  int accumulated = 0;

  Impl(const Model& model_, const AttentionShape& shape_, Kind kind_, const PassOptions& options_, std::size_t bytes)
      : model(model_),
        config(model_.config()),
        plan(model_.plan()),
        shape(shape_),
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

  /// What is added to the logits of each read from `first_read` on, in the order of act.logit_bias.
  std::vector<double> wanted_logit_bias(int first_read, const RoutingIntervention* intervention) const {
    std::vector<double> wanted;
    for (int r = 0; r <= last_read(); ++r) {
      if (!read(r).routed) continue;
      const std::vector<int>& columns = read(r).columns;
      const std::size_t begin = wanted.size();
      if (r < first_read) {
        wanted.insert(wanted.end(), logit_bias.begin() + static_cast<std::ptrdiff_t>(begin),
                      logit_bias.begin() + static_cast<std::ptrdiff_t>(begin + columns.size()));
        continue;
      }
      wanted.resize(begin + columns.size(), 0.0);
      if (!config.has_learned_bias() && columns.size() > 1) wanted.back() = config.recency_bias;
      if (intervention && !intervention->logit_bias.empty()) {
        const auto& row = intervention->logit_bias.at(static_cast<std::size_t>(r));
        for (std::size_t i = 0; i < columns.size(); ++i)
          wanted[begin + i] += row.at(static_cast<std::size_t>(columns[i]));
      }
      if (std::none_of(wanted.begin() + static_cast<std::ptrdiff_t>(begin), wanted.end(),
                       [](double bias) { return bias > -INFINITY; }))
        throw std::invalid_argument("logit_bias: read " + read(r).name + " is left without a source");
    }
    return wanted;
  }

  void set_logit_bias(int first_read, const RoutingIntervention* intervention) {
    std::vector<double> wanted = wanted_logit_bias(first_read, intervention);
    if (wanted == logit_bias) return;
    logit_bias = std::move(wanted);
    cast(act.logit_bias, Tensor(logit_bias.data(), DType::f64, Device::cpu, {act.logit_bias.numel()}), stream);
  }

  AttnResPrepared prepared_of(int r, int first) {
    AttnResPrepared out = act.prepared[static_cast<std::size_t>(r - first)];
    out.score = at(r).state.score;
    return out;
  }

  /// Phase one of the reads first .. first + count - 1, of one group.
  void prepare_reads(int first, int count) {
    const Range range("prepare reads");
    const SourceTensors sources = sources_of(first);
    std::vector<AttnResPrepared> reads;
    std::vector<AttnResParams> params;
    for (int r = first; r < first + count; ++r) {
      reads.push_back(prepared_of(r, first));
      params.push_back(params_of(r));
    }
    attn_res_prepare(reads, params, sources.view(), stream);
  }

  /// p_r, alpha and the normalised input of sublayer r. y_{r-1} lies in partial r already, where p_r takes its place.
  /// When a pass is taken up at this read, p_r itself lies there: nothing is to be added. `prepared_first`: the first
  /// of the reads that were prepared together with this one, or -1.
  void forward_read(int r, Tensor alpha_override, bool taken_up, int prepared_first) {
    ReadActivations& a = at(r);
    const Tensor previous = read(r).continues && !taken_up ? at(r - 1).state.partial : Tensor{};
    if (!read(r).routed) {
      add_rms_norm_forward(a.x, a.state.partial, a.state.inv_rms, previous, a.state.partial,
                           norm_gain(model.weights(), r), config.rms_norm_eps, stream);
    } else if (prepared_first >= 0 && !alpha_override) {
      attn_res_merge(a.x, a.state, previous, a.state.partial, prepared_of(r, prepared_first), params_of(r), stream);
    } else {
      const SourceTensors sources = sources_of(r);
      attn_res_forward(a.x, a.state, previous, a.state.partial, sources.view(), params_of(r), alpha_override, stream);
    }
  }

  void forward_attention(std::int64_t l, Tensor y, Tensor x) {
    const auto index = static_cast<std::size_t>(l);
    const LayerWeights &operand = model.operands().layers[index], &weight = model.weights().layers[index];
    LayerActivations& a = act.layers[index];
    const Range range("attention");
    matmul(a.qkv_raw, x, kNo, operand.qkv, kYes, false, stream);
    mix_tokens(a, weight);
    matmul(y, a.attn_out, kNo, operand.o, kYes, false, stream);
  }

  /// Of attention everything between its products.
  void mix_tokens(const LayerActivations& a, const LayerWeights& weight) {
    qk_norm_rope_forward(a.qkv, a.qkv_raw, weight.q_norm, weight.k_norm, shape, config.rope_theta, config.rms_norm_eps,
                         stream);
    attention_forward(a.attn_out, a.lse, a.qkv, shape, stream);
  }

  void forward_mlp(std::int64_t l, Tensor y, Tensor x) {
    const LayerWeights& operand = model.operands().layers[static_cast<std::size_t>(l)];
    LayerActivations& a = act.layers[static_cast<std::size_t>(l)];
    const Range range("mlp");
    matmul(a.gate_up, x, kNo, operand.gate_up, kYes, false, stream);
    swiglu_forward(a.act, a.gate_up, stream);
    matmul(y, a.act, kNo, operand.down, kYes, false, stream);
  }

  void set_ids(std::span<const std::int32_t> ids) {
    if (static_cast<std::int64_t>(ids.size()) != shape.tokens())
      throw std::invalid_argument("forward: ids do not fit the pass");
    for (std::size_t i = 0; i < ids.size(); ++i)
      if (ids[i] < 0 || ids[i] >= config.vocab_size)
        throw Error("token {}: found id {}, expected 0 to {} (the vocabulary)", i, ids[i], config.vocab_size - 1);
    upload.to(act.ids, ids, stream);
  }

  /// From act.ids (or from what an earlier pass left before `first_read`) to the final norm. Only puts work on the
  /// stream.
  void run(const RoutingIntervention* intervention, int first_read) {
    const Range range("forward");
    if (first_read == 0) embedding_forward(at(0).state.partial, act.ids, model.weights().embedding, stream);
    int prepared_first = -1, prepared_end = 0;
    for (int r = first_read; r <= last_read(); ++r) {
      Tensor alpha_override;
      if (intervention) {
        if (const auto found = intervention->alpha_override.find(r); found != intervention->alpha_override.end())
          alpha_override = found->second;
      }
      alpha_is_given[static_cast<std::size_t>(r)] = alpha_override.defined();
      if (r >= prepared_end) {
        prepared_first = -1;
        if (const int count = reads_to_prepare(plan, r, options, model.options().device); count > 0) {
          prepare_reads(r, count);
          prepared_first = r;
          prepared_end = r + count;
        }
      }
      forward_read(r, alpha_override, first_read > 0 && r == first_read, prepared_first);
      if (read(r).sublayer == Sublayer::attn)
        forward_attention(read(r).layer, at(r + 1).state.partial, at(r).x);
      else if (read(r).sublayer == Sublayer::mlp)
        forward_mlp(read(r).layer, at(r + 1).state.partial, at(r).x);
    }
    ran = true;
  }

  void forward(std::span<const std::int32_t> ids, const RoutingIntervention* intervention, int first_read) {
    if (static_cast<std::int64_t>(ids.size()) != shape.tokens())
      throw std::invalid_argument("forward: ids do not fit the pass");
    if (first_read < 0 || first_read > last_read() || (first_read > 0 && !ran))
      throw std::invalid_argument("forward: nothing to take up at this read");
    if (first_read == 0) set_ids(ids);
    set_logit_bias(first_read, intervention);
    run(intervention, first_read);
  }

  // ---- head ----

  void set_targets(std::span<const std::int32_t> targets) {
    if (static_cast<std::int64_t>(targets.size()) != shape.tokens())
      throw std::invalid_argument("targets do not fit the pass");
    for (std::size_t i = 0; i < targets.size(); ++i)
      if (targets[i] < -1 || targets[i] >= config.vocab_size)
        throw Error("target {}: found id {}, expected -1 to {} (the vocabulary)", i, targets[i], config.vocab_size - 1);
    upload.to(act.targets, targets, stream);
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
    if (!ran) throw std::invalid_argument("no forward pass has run");
    set_targets(targets);
    for_each_head_chunk([&](std::int64_t begin, std::int64_t end, Tensor logits) {
      cross_entropy(act.nll.rows(begin, end), Tensor{}, logits, act.targets.rows(begin, end), 0.0, stream);
    });
  }

  // ---- backward ----

  /// The loss, and the gradients of the head and of the final norm's output.
  void backward_head(double scale, const Weights& gradients) {
    const Range range("head");
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
    const Range range("attention backward");
    if (options.recompute >= Recompute::attention) mix_tokens(a, weight);
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
    const Range range("mlp backward");
    if (options.recompute >= Recompute::swiglu) swiglu_forward(a.act, a.gate_up, stream);
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

  /// x of read r once more, from its partial and its weights on the sources.
  void recompute_input(int r) {
    const Tensor alpha = read(r).routed ? at(r).state.alpha : Tensor{};
    forward_read(r, alpha, true, -1);
  }

  /// Only puts work on the stream.
  void backward(double scale, const Weights& gradients) {
    const Range range("backward");
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
      if (options.recompute >= Recompute::norms) recompute_input(r - 1);
      if (feeder.sublayer == Sublayer::attn)
        backward_attention(feeder.layer, at(r - 1).x, gradients);
      else
        backward_mlp(feeder.layer, at(r - 1).x, gradients);
      if (!read(r).continues) fill(b.dp, 0.0, stream);
    }
    embedding_backward(gradients.embedding, b.dp, act.ids, stream);
    accumulate_loss(act.loss, act.nll, stream);
  }

  void accumulate(double scale, Tensor gradients) {
    const auto work = [&] {
      run(nullptr, 0);
      backward(scale, Weights(config, model.layout(), gradients));
    };
    if (!options.graph) return work();
    // The first time goes without: products choose how they are computed then.
    if (accumulated++ == 0) return work();
    if (!recorded || recorded_scale != scale || recorded_gradients != gradients.data) {
      recorded = RecordedWork(stream, work);
      recorded_scale = scale;
      recorded_gradients = gradients.data;
    }
    recorded.replay(stream);
  }

  /// The sum in act.loss, which becomes 0.
  double take_loss() {
    double sum = 0, zero = 0;
    copy(Tensor(&sum, DType::f64, Device::cpu, {1}), act.loss, stream);
    synchronize(stream);
    copy(act.loss, Tensor(&zero, DType::f64, Device::cpu, {1}), stream);
    return sum;
  }
};

namespace {

AttentionShape attention_shape(const ModelConfig& config, std::int64_t batch, std::int64_t seq_len) {
  if (batch < 1 || seq_len < 1) throw std::invalid_argument("a pass needs at least one sequence of at least one token");
  return {batch, seq_len, config.num_attention_heads, config.num_key_value_heads, config.head_dim};
}

}  // namespace

std::vector<Arena::Part> Pass::plan_memory(const ModelConfig& config, const ModelOptions& model, std::int64_t batch,
                                           std::int64_t seq_len, Kind kind, const PassOptions& options) {
  Arena planner(model.device);
  Activations().take(planner, config, ReadPlan(config), model, attention_shape(config, batch, seq_len),
                     kind == Kind::train, options);
  return planner.parts();
}

Pass::Pass(const Model& model, std::int64_t batch, std::int64_t seq_len, Kind kind, const PassOptions& options) {
  if (options.graph && model.options().device != Device::cuda)
    throw std::invalid_argument("a pass is recorded as a graph on CUDA only");
  std::size_t bytes = 0;
  for (const Arena::Part& part : plan_memory(model.config(), model.options(), batch, seq_len, kind, options))
    bytes += part.bytes;
  impl_ = std::make_unique<Impl>(model, attention_shape(model.config(), batch, seq_len), kind, options, bytes);
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
  const Tensor x = impl_->at(impl_->last_read()).x, own = impl_->act.logits;
  const auto product = [&](Tensor to, std::int64_t from, std::int64_t until) {
    matmul(to, x.rows(from, until), kNo, impl_->model.operands().head, kYes, false, impl_->stream);
  };
  if (out.device == own.device && out.dtype == own.dtype) return product(out, begin, end);
  for (std::int64_t chunk = begin; chunk < end; chunk += impl_->act.head_rows) {
    const std::int64_t chunk_end = std::min(chunk + impl_->act.head_rows, end);
    product(own.rows(0, chunk_end - chunk), chunk, chunk_end);
    cast(out.rows(chunk - begin, chunk_end - begin), own.rows(0, chunk_end - chunk), impl_->stream);
  }
}

double Pass::loss(std::span<const std::int32_t> targets) {
  impl_->forward_loss(targets);
  double sum = 0;
  for (const double value : host_values<double>(impl_->act.nll, impl_->stream)) sum += value;
  return sum;
}

void Pass::backward(std::span<const std::int32_t> targets, double scale, Tensor gradients) {
  if (impl_->kind != Kind::train) throw std::invalid_argument("backward: this pass keeps no activations");
  if (!impl_->ran) throw std::invalid_argument("no forward pass has run");
  impl_->set_targets(targets);
  impl_->backward(scale, Weights(impl_->config, impl_->model.layout(), gradients));
}

void Pass::accumulate(std::span<const std::int32_t> ids, std::span<const std::int32_t> targets, double scale,
                      Tensor gradients) {
  if (impl_->kind != Kind::train) throw std::invalid_argument("accumulate: this pass keeps no activations");
  impl_->set_ids(ids);
  impl_->set_targets(targets);
  impl_->set_logit_bias(0, nullptr);
  impl_->accumulate(scale, gradients);
}

double Pass::take_loss() {
  return impl_->take_loss();
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
