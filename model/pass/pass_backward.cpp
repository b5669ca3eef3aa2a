// The head and the backward pass: the forward pass in reverse, what a group of reads owes its sources settled at once.
#include "model/pass/pass_impl.h"

namespace routescope::model {

void Pass::Impl::backward_head(double scale, const Weights& gradients) {
  const kernels::Range range("head");
  const kernels::Tensor x = at(last_read()).x;
  for_each_head_chunk([&](std::int64_t begin, std::int64_t end, kernels::Tensor logits) {
    const kernels::Tensor dlogits = act.dlogits.rows(0, end - begin);
    kernels::cross_entropy(act.nll.rows(begin, end), dlogits, logits, act.targets.rows(begin, end), scale, stream);
    kernels::matmul(act.backward.dx.rows(begin, end), dlogits, kNo, model.operands().head, kNo, false, stream);
    kernels::matmul(gradients.head, dlogits, kYes, x.rows(begin, end), kNo, true, stream);
  });
}

void Pass::Impl::backward_attention(std::int64_t l, kernels::Tensor x, const Weights& gradients) {
  const auto index = static_cast<std::size_t>(l);
  const LayerWeights &operand = model.operands().layers[index], &weight = model.weights().layers[index];
  const LayerWeights& gradient = gradients.layers[index];
  const LayerActivations& a = act.layers[index];
  const BackwardScratch& b = act.backward;
  const kernels::Range range("attention backward");
  if (options.recompute >= Recompute::attention) mix_tokens(a, weight);
  kernels::matmul(b.dattn_out, b.dy, kNo, operand.o, kNo, false, stream);
  kernels::matmul(gradient.o, b.dy, kYes, a.attn_out, kNo, true, stream);
  kernels::attention_backward(b.dqkv, b.dattn_out, a.attn_out, a.lse, a.qkv, shape, stream);
  kernels::qk_norm_rope_backward(b.dqkv_operand, gradient.q_norm, gradient.k_norm, b.dqkv, a.qkv_raw, weight.q_norm,
                                 weight.k_norm, shape, config.rope_theta, config.rms_norm_eps, stream);
  kernels::matmul(b.dx, b.dqkv_operand, kNo, operand.qkv, kNo, false, stream);
  kernels::matmul(gradient.qkv, b.dqkv_operand, kYes, x, kNo, true, stream);
}

void Pass::Impl::backward_mlp(std::int64_t l, kernels::Tensor x, const Weights& gradients) {
  const auto index = static_cast<std::size_t>(l);
  const LayerWeights& operand = model.operands().layers[index];
  const LayerWeights& gradient = gradients.layers[index];
  const LayerActivations& a = act.layers[index];
  const BackwardScratch& b = act.backward;
  const kernels::Range range("mlp backward");
  if (options.recompute >= Recompute::swiglu) kernels::swiglu_forward(a.act, a.gate_up, stream);
  kernels::matmul(b.dact, b.dy, kNo, operand.down, kNo, false, stream);
  kernels::matmul(gradient.down, b.dy, kYes, a.act, kNo, true, stream);
  kernels::swiglu_backward(b.dgate_up, b.dact, a.gate_up, stream);
  kernels::matmul(b.dx, b.dgate_up, kNo, operand.gate_up, kNo, false, stream);
  kernels::matmul(gradient.gate_up, b.dgate_up, kYes, x, kNo, true, stream);
}

void Pass::Impl::backward_read(int r, const Weights& gradients, int group_first) {
  ReadActivations& a = at(r);
  const BackwardScratch& b = act.backward;
  const kernels::Tensor gain_gradient = norm_gain(gradients, r);
  if (!read(r).routed) {
    kernels::add_rms_norm_backward(b.dp, gain_gradient, b.dx, a.state.partial, a.state.inv_rms,
                                   norm_gain(model.weights(), r), stream);
    return;
  }
  const ReadWeights& g = gradients.reads[static_cast<std::size_t>(r)];
  const SourceTensors sources = sources_of(r);
  kernels::attn_res_backward(
      b.dh[static_cast<std::size_t>(r - group_first)], b.dlogit[static_cast<std::size_t>(r)], b.dp,
      {.query = g.query, .key_gain = g.key_gain, .bias = g.bias, .norm_gain = gain_gradient}, b.dx, a.state,
      sources.view(), params_of(r), alpha_is_given[static_cast<std::size_t>(r)], stream);
}

void Pass::Impl::settle_group(int first, int last) {
  const SourceTensors sources = sources_of(first);
  if (sources.values.empty()) return;
  std::vector<kernels::Tensor> dsources;
  for (int source : read(first).sources) dsources.push_back(act.backward.dsource[static_cast<std::size_t>(source)]);
  std::vector<kernels::AttnResDeferred> reads;
  for (int r = first; r <= last; ++r) {
    const ReadWeights& weights = model.weights().reads[static_cast<std::size_t>(r)];
    reads.push_back({.dh = act.backward.dh[static_cast<std::size_t>(r - first)],
                     .dlogit = act.backward.dlogit[static_cast<std::size_t>(r)],
                     .alpha = at(r).state.alpha,
                     .score = at(r).state.score,
                     .query = weights.query,
                     .key_gain = weights.key_gain});
  }
  kernels::attn_res_backward_sources(dsources, reads, sources.view(), stream);
}

void Pass::Impl::recompute_input(int r) {
  const kernels::Tensor alpha = read(r).routed ? at(r).state.alpha : kernels::Tensor{};
  forward_read(r, alpha, true, -1);
}

void Pass::Impl::backward(double scale, const Weights& gradients, const PassHooks& hooks) {
  const kernels::Range range("backward");
  const BackwardScratch& b = act.backward;
  const auto complete = [&](std::int64_t begin) {
    if (hooks.complete) hooks.complete(begin);
  };
  backward_head(scale, gradients);
  complete(places.layers.back().end);  // an untied head; a tied one is the embedding
  kernels::fill(b.dp, 0.0, stream);
  for (const kernels::Tensor& dsource : b.dsource)
    if (dsource) kernels::fill(dsource, 0.0, stream);

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
    if (const kernels::Tensor& dsource = b.dsource[static_cast<std::size_t>(r)]) kernels::add(b.dp, dsource, stream);
    if (r == 0) break;
    if (b.dy.data != b.dp.data) kernels::cast(b.dy, b.dp, stream);
    const Read& feeder = read(r - 1);
    if (options.recompute >= Recompute::norms) recompute_input(r - 1);
    const MatrixPlaces::Layer& place = places.layers[static_cast<std::size_t>(feeder.layer)];
    if (feeder.sublayer == Sublayer::attn) {
      backward_attention(feeder.layer, at(r - 1).x, gradients);
      complete(place.attention);
    } else {
      backward_mlp(feeder.layer, at(r - 1).x, gradients);
      complete(place.mlp);
    }
    if (!read(r).continues) kernels::fill(b.dp, 0.0, stream);
  }
  kernels::embedding_backward(gradients.embedding, b.dp, act.ids, stream);
  complete(0);
  kernels::accumulate_loss(act.loss, act.nll, stream);
}

void Pass::Impl::accumulate(double scale, kernels::Tensor gradients, const PassHooks& hooks) {
  const auto work = [&] {
    run(nullptr, 0, hooks);
    backward(scale, Weights(config, model.layout(), gradients), hooks);
  };
  // A recording holds work of this stream alone, at one place for all micro-batches: what is told to hooks in between
  // (and what they wait for) has no place in it.
  if (!options.graph || hooks.needed || hooks.complete) return work();
  // The first time goes without: products choose how they are computed then.
  if (accumulated++ == 0) return work();
  if (!recorded || recorded_scale != scale || recorded_gradients != gradients.data) {
    recorded = kernels::RecordedWork(stream, work);
    recorded_scale = scale;
    recorded_gradients = gradients.data;
  }
  recorded.replay(stream);
  ran = true;
}

double Pass::Impl::take_loss() {
  double sum = 0;
  kernels::copy(kernels::Tensor(&sum, kernels::DType::f64, kernels::Device::cpu, {1}), act.loss, stream);
  kernels::synchronize(stream);
  kernels::fill(act.loss, 0.0, stream);
  return sum;
}

}  // namespace routescope::model
