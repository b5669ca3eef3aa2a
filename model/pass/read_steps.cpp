#include "model/pass/read_steps.h"

#include <algorithm>
#include <limits>

namespace routescope::model {

namespace {

/// The state in which phase one leaves the score of read r.
kernels::AttnResPrepared prepared_of(PassState& pass, int r, int first) {
  kernels::AttnResPrepared out = pass.act.prepared[static_cast<std::size_t>(r - first)];
  out.score = pass.at(r).state.score;
  return out;
}

/// The weights that an edit gives for `alpha` [tokens, n+1], reordered: the operation has the current source last.
std::vector<double> edited_weights(const ReadEdit& edit, const std::vector<double>& alpha, std::int64_t tokens,
                                   std::int64_t n) {
  const auto extras = static_cast<std::int64_t>(edit.extra.size()), columns = n + 1 + extras;
  std::vector<double> edited(static_cast<std::size_t>(tokens * columns), std::numeric_limits<double>::quiet_NaN());
  edit.alpha(alpha, edited);
  std::vector<double> ordered(edited.size());
  for (std::int64_t t = 0; t < tokens; ++t) {
    const double* from = edited.data() + t * columns;
    double* to = ordered.data() + t * columns;
    std::copy_n(from, n, to);
    std::copy_n(from + n + 1, extras, to + n);
    to[columns - 1] = from[n];
  }
  return ordered;
}

/// Room for tables of `columns` and for as many extra sources.
void grow(EditScratch& s, const PassState& pass, std::int64_t columns, std::int64_t extras) {
  const kernels::DType storage = pass.model.options().storage, activation = pass.model.options().activations();
  const kernels::Device device = pass.model.options().device;
  const std::int64_t tokens = pass.shape.tokens();
  if (!s.inv_rms.tensor) {
    s.inv_rms = kernels::OwnedTensor(storage, device, {tokens});
    s.h_inv_rms = kernels::OwnedTensor(storage, device, {tokens});
    s.zero_ids = kernels::OwnedTensor(kernels::DType::i32, device, {tokens});
  }
  if (s.columns < columns) {
    for (kernels::OwnedTensor* table : {&s.score, &s.alpha, &s.given})
      *table = kernels::OwnedTensor(storage, device, {tokens, columns});
    s.columns = columns;
  }
  while (static_cast<std::int64_t>(s.extra.size()) < extras)
    s.extra.emplace_back(activation, device, std::initializer_list<std::int64_t>{tokens, pass.config.hidden_size});
}

}  // namespace

void prepare_reads(PassState& pass, int first, int count) {
  const kernels::Range range("prepare reads");
  const SourceTensors sources = pass.sources_of(first);
  std::vector<kernels::AttnResPrepared> reads;
  std::vector<kernels::AttnResParams> params;
  for (int r = first; r < first + count; ++r) {
    reads.push_back(prepared_of(pass, r, first));
    params.push_back(pass.params_of(r));
  }
  kernels::attn_res_prepare(reads, params, sources.view(), pass.stream);
}

void forward_read(PassState& pass, int r, kernels::Tensor alpha_override, bool resumed, int prepared_first) {
  const Read& read = pass.read(r);
  ReadActivations& a = pass.at(r);
  const kernels::Tensor previous = read.continues && !resumed ? pass.at(r - 1).state.partial : kernels::Tensor{};
  if (!read.routed) {
    kernels::add_rms_norm_forward(a.x, a.state.partial, a.state.inv_rms, previous, a.state.partial,
                                  pass.norm_gain(pass.model.weights(), r), pass.config.rms_norm_eps, pass.stream);
  } else if (prepared_first >= 0 && !alpha_override) {
    kernels::attn_res_merge(a.x, a.state, previous, a.state.partial, prepared_of(pass, r, prepared_first),
                            pass.params_of(r), pass.stream);
  } else {
    const SourceTensors sources = pass.sources_of(r);
    kernels::attn_res_forward(a.x, a.state, previous, a.state.partial, sources.view(), pass.params_of(r),
                              alpha_override, pass.stream);
  }
}

void edit_read(PassState& pass, EditScratch& s, int r, const ReadEdit& edit) {
  const kernels::Range range("edit read");
  const std::int64_t tokens = pass.shape.tokens(), d = pass.config.hidden_size;
  const auto extras = static_cast<std::int64_t>(edit.extra.size());
  const auto n = static_cast<std::int64_t>(pass.read(r).sources.size()), columns = n + 1 + extras;
  ReadActivations& a = pass.at(r);

  std::vector<double> weights =
      edited_weights(edit, kernels::host_values<double>(a.state.alpha, pass.stream), tokens, n);
  grow(s, pass, columns, extras);
  const auto table = [&](const kernels::OwnedTensor& owned) { return owned.tensor.slice(0, {tokens, columns}); };
  const kernels::Tensor given = table(s.given);
  kernels::cast(given, kernels::Tensor(weights.data(), kernels::DType::f64, kernels::Device::cpu, {tokens, columns}),
                pass.stream);
  SourceTensors sources = pass.sources_of(r);
  for (std::size_t e = 0; e < edit.extra.size(); ++e) {
    // Row 0 of a table of one row, for every token.
    kernels::embedding_forward(s.extra[e].tensor, s.zero_ids.tensor, edit.extra[e].view({1, d}), pass.stream);
    sources.values.push_back(s.extra[e].tensor);
    sources.inv_rms.push_back(a.state.inv_rms);  // of the right shape; with a given alpha no score is used
  }
  kernels::AttnResParams params = pass.params_of(r);
  params.logit_bias = {};
  kernels::attn_res_forward(a.x,
                            {.partial = a.state.partial,
                             .inv_rms = s.inv_rms.tensor,
                             .score = table(s.score),
                             .alpha = table(s.alpha),
                             .h_inv_rms = s.h_inv_rms.tensor},
                            kernels::Tensor{}, a.state.partial, sources.view(), params, given, pass.stream);
}

void backward_read(PassState& pass, int r, const Weights& gradients, int group_first) {
  ReadActivations& a = pass.at(r);
  const BackwardScratch& b = pass.act.backward;
  const kernels::Tensor gain_gradient = pass.norm_gain(gradients, r);
  if (!pass.read(r).routed) {
    kernels::add_rms_norm_backward(b.dp, gain_gradient, b.dx, a.state.partial, a.state.inv_rms,
                                   pass.norm_gain(pass.model.weights(), r), pass.stream);
    return;
  }
  const ReadWeights& g = gradients.reads[static_cast<std::size_t>(r)];
  const SourceTensors sources = pass.sources_of(r);
  kernels::attn_res_backward(
      b.dh[static_cast<std::size_t>(r - group_first)], b.dlogit[static_cast<std::size_t>(r)], b.dp,
      {.query = g.query, .key_gain = g.key_gain, .bias = g.bias, .norm_gain = gain_gradient}, b.dx, a.state,
      sources.view(), pass.params_of(r), pass.alpha_is_given[static_cast<std::size_t>(r)], pass.stream);
}

void backward_group_sources(PassState& pass, int first, int last) {
  const SourceTensors sources = pass.sources_of(first);
  if (sources.values.empty()) return;
  const BackwardScratch& b = pass.act.backward;
  std::vector<kernels::Tensor> dsources;
  for (int source : pass.read(first).sources) dsources.push_back(b.dsource[static_cast<std::size_t>(source)]);
  std::vector<kernels::AttnResDeferred> reads;
  for (int r = first; r <= last; ++r) {
    const ReadWeights& weights = pass.model.weights().reads[static_cast<std::size_t>(r)];
    reads.push_back({.dh = b.dh[static_cast<std::size_t>(r - first)],
                     .dlogit = b.dlogit[static_cast<std::size_t>(r)],
                     .alpha = pass.at(r).state.alpha,
                     .score = pass.at(r).state.score,
                     .query = weights.query,
                     .key_gain = weights.key_gain});
  }
  kernels::attn_res_backward_sources(dsources, reads, sources.view(), pass.stream);
}

void recompute_input(PassState& pass, int r) {
  const kernels::Tensor alpha = pass.read(r).routed ? pass.at(r).state.alpha : kernels::Tensor{};
  forward_read(pass, r, alpha, true, -1);
}

}  // namespace routescope::model
