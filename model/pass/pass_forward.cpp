// The forward pass: read r feeds sublayer r, whose output goes into partial r + 1 (MATH.md, "Residual stream and
// reads").
#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "data/base/error.h"
#include "model/pass/pass_impl.h"

namespace routescope::model {

std::vector<double> Pass::Impl::wanted_logit_bias(int first_read, const RoutingIntervention* intervention) const {
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

void Pass::Impl::set_logit_bias(int first_read, const RoutingIntervention* intervention) {
  std::vector<double> wanted = wanted_logit_bias(first_read, intervention);
  if (wanted == logit_bias) return;
  logit_bias = std::move(wanted);
  kernels::cast(act.logit_bias,
                kernels::Tensor(logit_bias.data(), kernels::DType::f64, kernels::Device::cpu, {act.logit_bias.numel()}),
                stream);
}

void Pass::Impl::prepare_reads(int first, int count) {
  const kernels::Range range("prepare reads");
  const SourceTensors sources = sources_of(first);
  std::vector<kernels::AttnResPrepared> reads;
  std::vector<kernels::AttnResParams> params;
  for (int r = first; r < first + count; ++r) {
    reads.push_back(prepared_of(r, first));
    params.push_back(params_of(r));
  }
  kernels::attn_res_prepare(reads, params, sources.view(), stream);
}

void Pass::Impl::forward_read(int r, kernels::Tensor alpha_override, bool taken_up, int prepared_first) {
  ReadActivations& a = at(r);
  const kernels::Tensor previous = read(r).continues && !taken_up ? at(r - 1).state.partial : kernels::Tensor{};
  if (!read(r).routed) {
    kernels::add_rms_norm_forward(a.x, a.state.partial, a.state.inv_rms, previous, a.state.partial,
                                  norm_gain(model.weights(), r), config.rms_norm_eps, stream);
  } else if (prepared_first >= 0 && !alpha_override) {
    kernels::attn_res_merge(a.x, a.state, previous, a.state.partial, prepared_of(r, prepared_first), params_of(r),
                            stream);
  } else {
    const SourceTensors sources = sources_of(r);
    kernels::attn_res_forward(a.x, a.state, previous, a.state.partial, sources.view(), params_of(r), alpha_override,
                              stream);
  }
}

void Pass::Impl::forward_attention(std::int64_t l, kernels::Tensor y, kernels::Tensor x) {
  const auto index = static_cast<std::size_t>(l);
  const LayerWeights &operand = model.operands().layers[index], &weight = model.weights().layers[index];
  LayerActivations& a = act.layers[index];
  const kernels::Range range("attention");
  kernels::matmul(a.qkv_raw, x, kNo, operand.qkv, kYes, false, stream);
  mix_tokens(a, weight);
  kernels::matmul(y, a.attn_out, kNo, operand.o, kYes, false, stream);
}

void Pass::Impl::mix_tokens(const LayerActivations& a, const LayerWeights& weight) {
  kernels::qk_norm_rope_forward(a.qkv, a.qkv_raw, weight.q_norm, weight.k_norm, shape, config.rope_theta,
                                config.rms_norm_eps, stream);
  kernels::attention_forward(a.attn_out, a.lse, a.qkv, shape, stream);
}

void Pass::Impl::forward_mlp(std::int64_t l, kernels::Tensor y, kernels::Tensor x) {
  const LayerWeights& operand = model.operands().layers[static_cast<std::size_t>(l)];
  LayerActivations& a = act.layers[static_cast<std::size_t>(l)];
  const kernels::Range range("mlp");
  kernels::matmul(a.gate_up, x, kNo, operand.gate_up, kYes, false, stream);
  kernels::swiglu_forward(a.act, a.gate_up, stream);
  kernels::matmul(y, a.act, kNo, operand.down, kYes, false, stream);
}

void Pass::Impl::set_ids(std::span<const std::int32_t> ids) {
  if (static_cast<std::int64_t>(ids.size()) != shape.tokens())
    throw std::invalid_argument("forward: ids do not fit the pass");
  for (std::size_t i = 0; i < ids.size(); ++i)
    if (ids[i] < 0 || ids[i] >= config.vocab_size)
      throw data::Error("token {}: found id {}, expected 0 to {} (the vocabulary)", i, ids[i], config.vocab_size - 1);
  upload.to(act.ids, ids, stream);
}

void Pass::Impl::run(const RoutingIntervention* intervention, int first_read, const PassHooks& hooks) {
  const kernels::Range range("forward");
  const auto need = [&](std::int64_t end) {
    if (hooks.needed) hooks.needed(end);
  };
  if (first_read == 0) need(places.embedding_end);
  if (first_read == 0) kernels::embedding_forward(at(0).state.partial, act.ids, model.operands().embedding, stream);
  if (first_edited >= first_read) first_edited = no_read;
  int prepared_first = -1, prepared_end = 0;
  for (int r = first_read; r <= last_read(); ++r) {
    kernels::Tensor alpha_override;
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
    if (intervention) {
      if (const auto found = intervention->edits.find(r); found != intervention->edits.end()) {
        first_edited = std::min(first_edited, r);
        edit_read(r, found->second);
      }
    }
    if (read(r).sublayer == Sublayer::attn) {
      need(places.layers[static_cast<std::size_t>(read(r).layer)].mlp);
      forward_attention(read(r).layer, at(r + 1).state.partial, at(r).x);
    } else if (read(r).sublayer == Sublayer::mlp) {
      need(places.layers[static_cast<std::size_t>(read(r).layer)].end);
      forward_mlp(read(r).layer, at(r + 1).state.partial, at(r).x);
    }
  }
  need(places.end);  // the head, which follows
  ran = true;
}

void Pass::Impl::forward(std::span<const std::int32_t> ids, const RoutingIntervention* intervention, int first_read) {
  if (static_cast<std::int64_t>(ids.size()) != shape.tokens())
    throw std::invalid_argument("forward: ids do not fit the pass");
  if (first_read < 0 || first_read > last_read() || (first_read > 0 && !ran))
    throw std::invalid_argument("forward: nothing to take up at this read");
  if (intervention) check_edits(*intervention);
  ran = false;  // until run() ends: what an exception leaves behind is nothing to take up
  if (first_read == 0) set_ids(ids);
  set_logit_bias(first_read, intervention);
  run(intervention, first_read, {});
}

void Pass::Impl::set_targets(std::span<const std::int32_t> targets) {
  if (static_cast<std::int64_t>(targets.size()) != shape.tokens())
    throw std::invalid_argument("targets do not fit the pass");
  for (std::size_t i = 0; i < targets.size(); ++i)
    if (targets[i] < -1 || targets[i] >= config.vocab_size)
      throw data::Error("target {}: found id {}, expected -1 to {} (the vocabulary)", i, targets[i],
                        config.vocab_size - 1);
  upload.to(act.targets, targets, stream);
}

void Pass::Impl::forward_loss(std::span<const std::int32_t> targets) {
  if (!ran) throw std::invalid_argument("no forward pass has run");
  set_targets(targets);
  for_each_head_chunk([&](std::int64_t begin, std::int64_t end, kernels::Tensor logits) {
    kernels::cross_entropy(act.nll.rows(begin, end), kernels::Tensor{}, logits, act.targets.rows(begin, end), 0.0,
                           stream);
  });
}

}  // namespace routescope::model
