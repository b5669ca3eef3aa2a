// Every operation as callers see it: checks the arguments, then calls the backend that the pivot tensor's device and
// type choose.
#include "kernels/ops.h"

#include <stdexcept>

#include "kernels/backends.h"
#include "kernels/checks.h"
#include "kernels/memory.h"

namespace routescope::kernels {

namespace {

#ifndef ROUTESCOPE_CUDA
[[noreturn]] void no_cuda() {
  throw std::runtime_error("this build has no CUDA backend: use tensors on the CPU");
}
#endif

std::int64_t columns_of(const Tensor& t) {
  return t.shape[1];
}

}  // namespace

// `call` is written once and compiled for each backend.
#ifdef ROUTESCOPE_CUDA
#define ROUTESCOPE_ON_CUDA(call) return cuda::call
#else
#define ROUTESCOPE_ON_CUDA(call) no_cuda()
#endif
#define ROUTESCOPE_DISPATCH(checks, call)                          \
  if ((checks).device() == Device::cuda) ROUTESCOPE_ON_CUDA(call); \
  if ((checks).reference()) return reference::call;                \
  return cpu::call

std::size_t workspace_bytes(const WorkspaceLimits& limits) {
  return cpu::workspace_bytes(limits);
}

std::size_t workspace_bytes(const WorkspaceLimits& limits, Device device) {
  if (device == Device::cuda) ROUTESCOPE_ON_CUDA(workspace_bytes(limits));
  return cpu::workspace_bytes(limits);
}

void fill(Tensor dst, double value, const Stream& stream) {
  const Checks checks("fill", dst);
  ROUTESCOPE_DISPATCH(checks, fill(dst, value, stream));
}

namespace {

/// A conversion between devices: the host converts, and the copy does not change the type.
void cast_between_devices(Tensor dst, Tensor src, const Stream& given) {
  // Callers without a stream of their own pass the CPU's.
  const Stream stream{.device = Device::cuda, .handle = given.handle};
  const auto on_host = [](const Tensor& like) { return OwnedTensor(like.dtype, Device::cpu, {like.numel()}); };
  const Tensor flat_dst = dst.view({dst.numel()}), flat_src = src.view({src.numel()});
  if (dst.dtype == src.dtype) {
    copy(flat_dst, flat_src, stream);
    synchronize(stream);
  } else if (dst.device == Device::cpu) {
    const OwnedTensor source = on_host(src);
    copy(source.tensor, flat_src, stream);
    synchronize(stream);
    cast(dst, source.tensor, Stream{});
  } else {
    const OwnedTensor converted = on_host(dst);
    cast(converted.tensor, src, Stream{});
    copy(flat_dst, converted.tensor, stream);
    synchronize(stream);
  }
}

}  // namespace

void cast(Tensor dst, Tensor src, const Stream& stream) {
  const Checks checks("cast", dst);
  checks.that(src && src.numel() == dst.numel(), "as many elements on both sides")
      .that(dst.dtype != DType::i32 && src.dtype != DType::i32, "f64, f32 or bf16 on both sides");
  if (dst.device != src.device) return cast_between_devices(dst, src, stream);
  if (checks.device() == Device::cuda) ROUTESCOPE_ON_CUDA(cast(dst, src, stream));
  // Any pair of types: the reference takes those with f64 on a side.
  if (dst.dtype == DType::f64 || src.dtype == DType::f64) return reference::cast(dst, src, stream);
  return cpu::cast(dst, src, stream);
}

template <class T>
std::vector<T> host_values(Tensor tensor, const Stream& stream) {
  std::vector<T> out(static_cast<std::size_t>(tensor.numel()));
  if (!out.empty()) cast(Tensor(out.data(), dtype_of<T>(), Device::cpu, {tensor.numel()}), tensor, stream);
  return out;
}
template std::vector<float> host_values<float>(Tensor, const Stream&);
template std::vector<double> host_values<double>(Tensor, const Stream&);

void random_normal(Tensor dst, double std, std::uint64_t seed, std::uint64_t sequence, const Stream& stream) {
  const Checks checks("random_normal", dst);
  checks.is("dst", dst, Kind::operand, {dst.numel()});
  ROUTESCOPE_DISPATCH(checks, random_normal(dst, std, seed, sequence, stream));
}

void add(Tensor dst, Tensor src, const Stream& stream) {
  const Checks checks("add", dst);
  checks.is("dst", dst, Kind::activation, {dst.numel()}).is("src", src, Kind::activation, {dst.numel()});
  ROUTESCOPE_DISPATCH(checks, add(dst, src, stream));
}

void embedding_forward(Tensor out, Tensor ids, Tensor weight, const Stream& stream) {
  const Checks checks("embedding_forward", out);
  checks.is("out", out, Kind::activation, {out.shape[0], out.shape[1]})
      .is("weight", weight, Kind::operand, {weight.shape[0], out.shape[1]})
      .is("ids", ids, Kind::ids, {out.shape[0]})
      .ids_within("ids", ids, 0, weight.shape[0]);
  ROUTESCOPE_DISPATCH(checks, embedding_forward(out, ids, weight, stream));
}

void embedding_backward(Tensor dweight, Tensor dout, Tensor ids, const Stream& stream) {
  const Checks checks("embedding_backward", dweight);
  checks.is("dout", dout, Kind::activation, {dout.shape[0], dweight.shape[1]})
      .is("dweight", dweight, Kind::real, {dweight.shape[0], dweight.shape[1]})
      .is("ids", ids, Kind::ids, {dout.shape[0]})
      .ids_within("ids", ids, 0, dweight.shape[0]);
  ROUTESCOPE_DISPATCH(checks, embedding_backward(dweight, dout, ids, stream));
}

void add_rms_norm_forward(Tensor x, Tensor p, Tensor inv_rms, Tensor p_in, Tensor y, Tensor gain, double eps,
                          const Stream& stream) {
  const Checks checks("add_rms_norm_forward", p);
  const std::int64_t tokens = p.shape[0], d = p.shape[1];
  checks.is("p", p, Kind::activation, {tokens, d})
      .is("x", x, Kind::operand, {tokens, d})
      .is("inv_rms", inv_rms, Kind::real, {tokens})
      .may("p_in", p_in, Kind::activation, {tokens, d})
      .may("y", y, Kind::activation, {tokens, d})
      .is("gain", gain, Kind::real, {d});
  ROUTESCOPE_DISPATCH(checks, add_rms_norm_forward(x, p, inv_rms, p_in, y, gain, eps, stream));
}

void add_rms_norm_backward(Tensor dp, Tensor dgain, Tensor dx, Tensor p, Tensor inv_rms, Tensor gain,
                           const Stream& stream) {
  const Checks checks("add_rms_norm_backward", dp);
  const std::int64_t tokens = dp.shape[0], d = dp.shape[1];
  checks.is("dp", dp, Kind::activation, {tokens, d})
      .is("dgain", dgain, Kind::real, {d})
      .is("dx", dx, Kind::activation, {tokens, d})
      .is("p", p, Kind::activation, {tokens, d})
      .is("inv_rms", inv_rms, Kind::real, {tokens})
      .is("gain", gain, Kind::real, {d});
  ROUTESCOPE_DISPATCH(checks, add_rms_norm_backward(dp, dgain, dx, p, inv_rms, gain, stream));
}

void matmul(Tensor c, Tensor a, Transpose transpose_a, Tensor b, Transpose transpose_b, bool accumulate,
            const Stream& stream) {
  const Checks checks("matmul", a);
  const std::int64_t m = c.shape[0], n = columns_of(c);
  const std::int64_t k = transpose_a == Transpose::yes ? a.shape[0] : a.shape[1];
  const bool ta = transpose_a == Transpose::yes, tb = transpose_b == Transpose::yes;
  checks.is("a", a, Kind::operand, {ta ? k : m, ta ? m : k})
      .is("b", b, Kind::operand, {tb ? n : k, tb ? k : n})
      .is("c", c, accumulate ? Kind::real : Kind::operand, {m, n})
      .that(a.dtype == b.dtype, "a and b of one type");
  ROUTESCOPE_DISPATCH(checks, matmul(c, a, transpose_a, b, transpose_b, accumulate, stream));
}

void qk_norm_rope_forward(Tensor out, Tensor qkv, Tensor q_gain, Tensor k_gain, const AttentionShape& shape,
                          double theta, double eps, const Stream& stream) {
  const Checks checks("qk_norm_rope_forward", out);
  check_attention_shape(checks, shape);
  checks.is("out", out, Kind::activation, {shape.tokens(), shape.packed_width()})
      .is("qkv", qkv, Kind::activation, {shape.tokens(), shape.packed_width()})
      .is("q_gain", q_gain, Kind::real, {shape.head_dim})
      .is("k_gain", k_gain, Kind::real, {shape.head_dim});
  ROUTESCOPE_DISPATCH(checks, qk_norm_rope_forward(out, qkv, q_gain, k_gain, shape, theta, eps, stream));
}

void qk_norm_rope_backward(Tensor dqkv, Tensor dq_gain, Tensor dk_gain, Tensor dout, Tensor qkv, Tensor q_gain,
                           Tensor k_gain, const AttentionShape& shape, double theta, double eps, const Stream& stream) {
  const Checks checks("qk_norm_rope_backward", dout);
  check_attention_shape(checks, shape);
  checks.is("dqkv", dqkv, Kind::operand, {shape.tokens(), shape.packed_width()})
      .is("dq_gain", dq_gain, Kind::real, {shape.head_dim})
      .is("dk_gain", dk_gain, Kind::real, {shape.head_dim})
      .is("dout", dout, Kind::activation, {shape.tokens(), shape.packed_width()})
      .is("qkv", qkv, Kind::activation, {shape.tokens(), shape.packed_width()})
      .is("q_gain", q_gain, Kind::real, {shape.head_dim})
      .is("k_gain", k_gain, Kind::real, {shape.head_dim});
  ROUTESCOPE_DISPATCH(
      checks, qk_norm_rope_backward(dqkv, dq_gain, dk_gain, dout, qkv, q_gain, k_gain, shape, theta, eps, stream));
}

void attention_forward(Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape, const Stream& stream) {
  const Checks checks("attention_forward", qkv);
  check_attention_shape(checks, shape);
  checks.is("out", out, Kind::operand, {shape.tokens(), shape.heads * shape.head_dim})
      .is("lse", lse, Kind::real, {shape.batch, shape.heads, shape.seq_len})
      .is("qkv", qkv, Kind::activation, {shape.tokens(), shape.packed_width()});
  ROUTESCOPE_DISPATCH(checks, attention_forward(out, lse, qkv, shape, stream));
}

void attention_backward(Tensor dqkv, Tensor dout, Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape,
                        const Stream& stream) {
  const Checks checks("attention_backward", dqkv);
  check_attention_shape(checks, shape);
  checks.is("dqkv", dqkv, Kind::activation, {shape.tokens(), shape.packed_width()})
      .is("dout", dout, Kind::activation, {shape.tokens(), shape.heads * shape.head_dim})
      .is("out", out, Kind::operand, {shape.tokens(), shape.heads * shape.head_dim})
      .is("lse", lse, Kind::real, {shape.batch, shape.heads, shape.seq_len})
      .is("qkv", qkv, Kind::activation, {shape.tokens(), shape.packed_width()});
  ROUTESCOPE_DISPATCH(checks, attention_backward(dqkv, dout, out, lse, qkv, shape, stream));
}

void swiglu_forward(Tensor act, Tensor gate_up, const Stream& stream) {
  const Checks checks("swiglu_forward", gate_up);
  checks.is("act", act, Kind::operand, {gate_up.shape[0], act.shape[1]})
      .is("gate_up", gate_up, Kind::activation, {gate_up.shape[0], 2 * act.shape[1]});
  ROUTESCOPE_DISPATCH(checks, swiglu_forward(act, gate_up, stream));
}

void swiglu_backward(Tensor dgate_up, Tensor dact, Tensor gate_up, const Stream& stream) {
  const Checks checks("swiglu_backward", dact);
  checks.is("dact", dact, Kind::activation, {dact.shape[0], dact.shape[1]})
      .is("dgate_up", dgate_up, Kind::operand, {dact.shape[0], 2 * dact.shape[1]})
      .is("gate_up", gate_up, Kind::activation, {dact.shape[0], 2 * dact.shape[1]});
  ROUTESCOPE_DISPATCH(checks, swiglu_backward(dgate_up, dact, gate_up, stream));
}

void attn_res_forward(Tensor x, const AttnResState& state, Tensor p_in, Tensor y, const AttnResSources& sources,
                      const AttnResParams& params, Tensor alpha_override, const Stream& stream) {
  const Checks checks("attn_res_forward", state.partial);
  const std::int64_t tokens = state.partial.shape[0], d = state.partial.shape[1];
  check_read(checks, state, sources, params);
  checks.is("x", x, Kind::operand, {tokens, d})
      .may("p_in", p_in, Kind::activation, {tokens, d})
      .may("y", y, Kind::activation, {tokens, d})
      .may("alpha_override", alpha_override, Kind::real, {tokens, columns_of(state.alpha)});
  ROUTESCOPE_DISPATCH(checks, attn_res_forward(x, state, p_in, y, sources, params, alpha_override, stream));
}

void attn_res_prepare(std::span<const AttnResPrepared> reads, std::span<const AttnResParams> params,
                      const AttnResSources& sources, const Stream& stream) {
  if (reads.empty() && params.empty()) return;
  const Checks checks("attn_res_prepare", sources.values.empty() ? Tensor() : sources.values[0]);
  const std::int64_t tokens = checks.rows(), d = checks.columns();
  const auto n = static_cast<std::int64_t>(sources.values.size());
  checks.that(reads.size() == params.size(), "as many params as reads")
      .that(sources.inv_rms.size() == sources.values.size(), "as many inv_rms as values of sources");
  for (const Tensor& value : sources.values) checks.is("sources.values", value, Kind::activation, {tokens, d});
  for (const Tensor& inv_rms : sources.inv_rms) checks.is("sources.inv_rms", inv_rms, Kind::real, {tokens});
  for (std::size_t i = 0; i < reads.size(); ++i) {
    checks.is("output", reads[i].output, Kind::activation, {tokens, d})
        .is("lse", reads[i].lse, Kind::real, {tokens})
        .is("score", reads[i].score, Kind::real, {tokens, n + 1})
        .is("params.query", params[i].query, Kind::real, {d})
        .is("params.key_gain", params[i].key_gain, Kind::real, {d})
        .may("params.logit_bias", params[i].logit_bias, Kind::real, {n + 1});
  }
  ROUTESCOPE_DISPATCH(checks, attn_res_prepare(reads, params, sources, stream));
}

void attn_res_merge(Tensor x, const AttnResState& state, Tensor p_in, Tensor y, const AttnResPrepared& prepared,
                    const AttnResParams& params, const Stream& stream) {
  const Checks checks("attn_res_merge", state.partial);
  const std::int64_t tokens = state.partial.shape[0], d = state.partial.shape[1];
  check_state(checks, state, columns_of(state.alpha) - 1, params);
  checks.is("x", x, Kind::operand, {tokens, d})
      .may("p_in", p_in, Kind::activation, {tokens, d})
      .may("y", y, Kind::activation, {tokens, d})
      .is("prepared.output", prepared.output, Kind::activation, {tokens, d})
      .is("prepared.lse", prepared.lse, Kind::real, {tokens})
      .that(prepared.score.data == state.score.data, "prepared.score to be state.score");
  ROUTESCOPE_DISPATCH(checks, attn_res_merge(x, state, p_in, y, prepared, params, stream));
}

void attn_res_backward(Tensor dh, Tensor dlogit, Tensor dp, const AttnResParamGrads& grads, Tensor dx,
                       const AttnResState& state, const AttnResSources& sources, const AttnResParams& params,
                       bool alpha_is_given, const Stream& stream) {
  const Checks checks("attn_res_backward", state.partial);
  const std::int64_t tokens = state.partial.shape[0], d = state.partial.shape[1];
  check_read(checks, state, sources, params);
  checks.is("dh", dh, Kind::activation, {tokens, d})
      .is("dlogit", dlogit, Kind::real, {tokens, columns_of(state.alpha)})
      .is("dp", dp, Kind::activation, {tokens, d})
      .is("dx", dx, Kind::activation, {tokens, d})
      .is("grads.query", grads.query, Kind::real, {d})
      .is("grads.key_gain", grads.key_gain, Kind::real, {d})
      .is("grads.norm_gain", grads.norm_gain, Kind::real, {d})
      .may("grads.bias", grads.bias, Kind::real, {1});
  ROUTESCOPE_DISPATCH(checks,
                      attn_res_backward(dh, dlogit, dp, grads, dx, state, sources, params, alpha_is_given, stream));
}

void attn_res_backward_sources(std::span<const Tensor> dsources, std::span<const AttnResDeferred> reads,
                               const AttnResSources& sources, const Stream& stream) {
  if (dsources.empty() && sources.values.empty()) return;
  const Checks checks("attn_res_backward_sources", sources.values.empty() ? Tensor() : sources.values[0]);
  const std::int64_t tokens = checks.rows(), d = checks.columns();
  const auto n = static_cast<std::int64_t>(sources.values.size());
  checks.that(dsources.size() == sources.values.size() && sources.inv_rms.size() == sources.values.size(),
              "as many dsources and inv_rms as values of sources");
  for (const Tensor& value : sources.values) checks.is("sources.values", value, Kind::activation, {tokens, d});
  for (const Tensor& inv_rms : sources.inv_rms) checks.is("sources.inv_rms", inv_rms, Kind::real, {tokens});
  for (const Tensor& dsource : dsources) checks.is("dsources", dsource, Kind::activation, {tokens, d});
  for (const AttnResDeferred& read : reads) {
    checks.is("dh", read.dh, Kind::activation, {tokens, d})
        .is("dlogit", read.dlogit, Kind::real, {tokens, n + 1})
        .is("alpha", read.alpha, Kind::real, {tokens, n + 1})
        .is("score", read.score, Kind::real, {tokens, n + 1})
        .is("query", read.query, Kind::real, {d})
        .is("key_gain", read.key_gain, Kind::real, {d});
  }
  ROUTESCOPE_DISPATCH(checks, attn_res_backward_sources(dsources, reads, sources, stream));
}

void routing_statistics(Tensor sums, Tensor entropy, Tensor alpha, std::span<const Tensor> inv_rms,
                        const Stream& stream) {
  const Checks checks("routing_statistics", alpha);
  const std::int64_t tokens = alpha.shape[0], columns = alpha.shape[1];
  checks.is("alpha", alpha, Kind::real, {tokens, columns})
      .is("sums", sums, Kind::sums, {3, columns})
      .is("entropy", entropy, Kind::sums, {1})
      .that(static_cast<std::int64_t>(inv_rms.size()) == columns, "as many inv_rms as columns of alpha");
  for (const Tensor& t : inv_rms) checks.is("inv_rms", t, Kind::real, {tokens});
  ROUTESCOPE_DISPATCH(checks, routing_statistics(sums, entropy, alpha, inv_rms, stream));
}

void contribution_statistics(Tensor sums, Tensor alpha, std::span<const Tensor> values, const Stream& stream) {
  const Checks checks("contribution_statistics", alpha);
  const std::int64_t tokens = alpha.shape[0], columns = alpha.shape[1];
  checks.is("alpha", alpha, Kind::real, {tokens, columns})
      .is("sums", sums, Kind::sums, {2, columns})
      .that(columns > 0 && static_cast<std::int64_t>(values.size()) == columns, "as many values as columns of alpha");
  for (const Tensor& value : values) checks.is("values", value, Kind::activation, {tokens, values.front().shape[1]});
  ROUTESCOPE_DISPATCH(checks, contribution_statistics(sums, alpha, values, stream));
}

void cross_entropy(Tensor nll, Tensor dlogits, Tensor logits, Tensor targets, double grad_scale, const Stream& stream) {
  const Checks checks("cross_entropy", logits);
  const std::int64_t tokens = logits.shape[0], vocabulary = logits.shape[1];
  checks.is("logits", logits, Kind::activation, {tokens, vocabulary})
      .is("nll", nll, Kind::real, {tokens})
      .may("dlogits", dlogits, Kind::operand, {tokens, vocabulary})
      .is("targets", targets, Kind::ids, {tokens})
      .ids_within("targets", targets, -1, vocabulary);
  ROUTESCOPE_DISPATCH(checks, cross_entropy(nll, dlogits, logits, targets, grad_scale, stream));
}

void compare_logits(Tensor kl, Tensor agree, Tensor intact, Tensor ablated, const Stream& stream) {
  const Checks checks("compare_logits", intact);
  const std::int64_t tokens = intact.shape[0], vocabulary = intact.shape[1];
  checks.is("intact", intact, Kind::activation, {tokens, vocabulary})
      .is("ablated", ablated, Kind::activation, {tokens, vocabulary})
      .is("kl", kl, Kind::real, {tokens})
      .is("agree", agree, Kind::real, {tokens});
  ROUTESCOPE_DISPATCH(checks, compare_logits(kl, agree, intact, ablated, stream));
}

void accumulate_loss(Tensor total, Tensor nll, const Stream& stream) {
  const Checks checks("accumulate_loss", nll);
  checks.is("nll", nll, Kind::real, {nll.numel()}).is("total", total, Kind::sums, {1});
  ROUTESCOPE_DISPATCH(checks, accumulate_loss(total, nll, stream));
}

void sum_of_squares(Tensor total, Tensor values, const Stream& stream) {
  const Checks checks("sum_of_squares", values);
  checks.is("values", values, Kind::real, {values.numel()}).is("total", total, Kind::sums, {1});
  ROUTESCOPE_DISPATCH(checks, sum_of_squares(total, values, stream));
}

void adamw(Tensor param, Tensor exp_avg, Tensor exp_avg_sq, Tensor grad, Tensor scale, const AdamWParams& params,
           const Stream& stream) {
  const Checks checks("adamw", param);
  const std::int64_t n = param.numel();
  checks.is("param", param, Kind::real, {n})
      .is("exp_avg", exp_avg, Kind::real, {n})
      .is("exp_avg_sq", exp_avg_sq, Kind::real, {n})
      .is("grad", grad, Kind::real, {n})
      .is("scale", scale, Kind::real, {1})
      .that(params.step >= 1, "a step of at least 1");
  ROUTESCOPE_DISPATCH(checks, adamw(param, exp_avg, exp_avg_sq, grad, scale, params, stream));
}

}  // namespace routescope::kernels
