#include "model/pass/sublayers.h"

#include <algorithm>

namespace routescope::model {

namespace {

/// What a sublayer works on. `operand` are the weights as operands of products (bf16 where the model has such copies).
struct Layer {
  const LayerWeights& operand;
  const LayerWeights& weight;
  const LayerActivations& act;

  Layer(const PassState& pass, std::int64_t layer)
      : operand(pass.model.operands().layers[static_cast<std::size_t>(layer)]),
        weight(pass.model.weights().layers[static_cast<std::size_t>(layer)]),
        act(pass.act.layers[static_cast<std::size_t>(layer)]) {}
};

/// The part of attention between its two products.
void mix_tokens(const PassState& pass, const Layer& l) {
  kernels::qk_norm_rope_forward(l.act.qkv, l.act.qkv_raw, l.weight.q_norm, l.weight.k_norm, pass.shape,
                                pass.config.rope_theta, pass.config.rms_norm_eps, pass.stream);
  kernels::attention_forward(l.act.attn_out, l.act.lse, l.act.qkv, pass.shape, pass.stream);
}

void head_product(PassState& pass, kernels::Tensor out, std::int64_t begin, std::int64_t end) {
  const kernels::Tensor x = pass.at(pass.last_read()).x.rows(begin, end);
  kernels::matmul(out, x, kNo, pass.model.operands().head, kYes, false, pass.stream);
}

/// Calls body(first, last, logits of tokens [first, last)) for each chunk of tokens [begin, end).
template <class Body>
void for_each_chunk(PassState& pass, std::int64_t begin, std::int64_t end, Body body) {
  for (std::int64_t first = begin; first < end; first += pass.act.head_rows) {
    const std::int64_t last = std::min(first + pass.act.head_rows, end);
    const kernels::Tensor logits = pass.act.logits.rows(0, last - first);
    head_product(pass, logits, first, last);
    body(first, last, logits);
  }
}

}  // namespace

void forward_attention(PassState& pass, std::int64_t layer, kernels::Tensor y, kernels::Tensor x) {
  const Layer l(pass, layer);
  const kernels::Range range("attention");
  kernels::matmul(l.act.qkv_raw, x, kNo, l.operand.qkv, kYes, false, pass.stream);
  mix_tokens(pass, l);
  kernels::matmul(y, l.act.attn_out, kNo, l.operand.o, kYes, false, pass.stream);
}

void backward_attention(PassState& pass, std::int64_t layer, kernels::Tensor x, const Weights& gradients) {
  const Layer l(pass, layer);
  const LayerWeights& gradient = gradients.layers[static_cast<std::size_t>(layer)];
  const BackwardScratch& b = pass.act.backward;
  const kernels::Stream& stream = pass.stream;
  const kernels::Range range("attention backward");
  if (pass.options.recompute >= Recompute::attention) mix_tokens(pass, l);
  kernels::matmul(b.dattn_out, b.dy, kNo, l.operand.o, kNo, false, stream);
  kernels::matmul(gradient.o, b.dy, kYes, l.act.attn_out, kNo, true, stream);
  kernels::attention_backward(b.dqkv, b.dattn_out, l.act.attn_out, l.act.lse, l.act.qkv, pass.shape, stream);
  kernels::qk_norm_rope_backward(b.dqkv_operand, gradient.q_norm, gradient.k_norm, b.dqkv, l.act.qkv_raw,
                                 l.weight.q_norm, l.weight.k_norm, pass.shape, pass.config.rope_theta,
                                 pass.config.rms_norm_eps, stream);
  kernels::matmul(b.dx, b.dqkv_operand, kNo, l.operand.qkv, kNo, false, stream);
  kernels::matmul(gradient.qkv, b.dqkv_operand, kYes, x, kNo, true, stream);
}

void forward_mlp(PassState& pass, std::int64_t layer, kernels::Tensor y, kernels::Tensor x) {
  const Layer l(pass, layer);
  const kernels::Range range("mlp");
  kernels::matmul(l.act.gate_up, x, kNo, l.operand.gate_up, kYes, false, pass.stream);
  kernels::swiglu_forward(l.act.act, l.act.gate_up, pass.stream);
  kernels::matmul(y, l.act.act, kNo, l.operand.down, kYes, false, pass.stream);
}

void backward_mlp(PassState& pass, std::int64_t layer, kernels::Tensor x, const Weights& gradients) {
  const Layer l(pass, layer);
  const LayerWeights& gradient = gradients.layers[static_cast<std::size_t>(layer)];
  const BackwardScratch& b = pass.act.backward;
  const kernels::Stream& stream = pass.stream;
  const kernels::Range range("mlp backward");
  if (pass.options.recompute >= Recompute::swiglu) kernels::swiglu_forward(l.act.act, l.act.gate_up, stream);
  kernels::matmul(b.dact, b.dy, kNo, l.operand.down, kNo, false, stream);
  kernels::matmul(gradient.down, b.dy, kYes, l.act.act, kNo, true, stream);
  kernels::swiglu_backward(b.dgate_up, b.dact, l.act.gate_up, stream);
  kernels::matmul(b.dx, b.dgate_up, kNo, l.operand.gate_up, kNo, false, stream);
  kernels::matmul(gradient.gate_up, b.dgate_up, kYes, x, kNo, true, stream);
}

void forward_sublayer(PassState& pass, int r, kernels::Tensor y, kernels::Tensor x) {
  const Read& read = pass.read(r);
  if (read.sublayer == Sublayer::attn) forward_attention(pass, read.layer, y, x);
  if (read.sublayer == Sublayer::mlp) forward_mlp(pass, read.layer, y, x);
}

void head_logits(PassState& pass, std::int64_t begin, std::int64_t end, kernels::Tensor out) {
  if (out.device == pass.act.logits.device && out.dtype == pass.act.logits.dtype)
    return head_product(pass, out, begin, end);
  for_each_chunk(pass, begin, end, [&](std::int64_t first, std::int64_t last, kernels::Tensor logits) {
    kernels::cast(out.rows(first - begin, last - begin), logits, pass.stream);
  });
}

void forward_loss(PassState& pass) {
  const Activations& act = pass.act;
  for_each_chunk(pass, 0, pass.shape.tokens(), [&](std::int64_t first, std::int64_t last, kernels::Tensor logits) {
    kernels::cross_entropy(act.nll.rows(first, last), kernels::Tensor{}, logits, act.targets.rows(first, last), 0.0,
                           pass.stream);
  });
}

void backward_head(PassState& pass, double scale, const Weights& gradients) {
  const kernels::Range range("head");
  const Activations& act = pass.act;
  const kernels::Tensor x = pass.at(pass.last_read()).x;
  for_each_chunk(pass, 0, pass.shape.tokens(), [&](std::int64_t first, std::int64_t last, kernels::Tensor logits) {
    const kernels::Tensor dlogits = act.dlogits.rows(0, last - first);
    kernels::cross_entropy(act.nll.rows(first, last), dlogits, logits, act.targets.rows(first, last), scale,
                           pass.stream);
    kernels::matmul(act.backward.dx.rows(first, last), dlogits, kNo, pass.model.operands().head, kNo, false,
                    pass.stream);
    kernels::matmul(gradients.head, dlogits, kYes, x.rows(first, last), kNo, true, pass.stream);
  });
}

}  // namespace routescope::model
