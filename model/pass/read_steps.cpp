#include "model/pass/read_steps.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

namespace routescope::model {

namespace {

/// The rows of one or more sequences of a batch.
struct Rows {
  std::int64_t begin, end;
  Rows(const PassState& pass, std::int64_t first_sequence, std::int64_t sequences)
      : begin(first_sequence * pass.shape.seq_len), end(begin + sequences * pass.shape.seq_len) {}

  kernels::Tensor of(const kernels::Tensor& tensor) const { return tensor ? tensor.rows(begin, end) : tensor; }
  kernels::AttnResState of(const kernels::AttnResState& state) const {
    return {of(state.partial), of(state.inv_rms), of(state.score), of(state.alpha), of(state.h_inv_rms)};
  }
  SourceTensors of(SourceTensors sources) const {
    for (kernels::Tensor& value : sources.values) value = of(value);
    for (kernels::Tensor& inv_rms : sources.inv_rms) inv_rms = of(inv_rms);
    return sources;
  }
};

/// The state in which phase one leaves the score of read r.
kernels::AttnResPrepared prepared_of(PassState& pass, int r, int first) {
  kernels::AttnResPrepared out = pass.act.prepared[static_cast<std::size_t>(r - first)];
  out.score = pass.at(r).state.score;
  return out;
}

/// The softmax of each row of logits [tokens, columns], in place.
void softmax_rows(std::span<double> logits, std::size_t columns) {
  for (std::size_t begin = 0; begin < logits.size(); begin += columns) {
    const std::span<double> row = logits.subspan(begin, columns);
    const double largest = *std::max_element(row.begin(), row.end());
    double sum = 0;
    for (double& value : row) sum += value = std::exp(value - largest);
    for (double& value : row) value /= sum;
  }
}

/// The weights that an edit gives to the read's sources and its extras, reordered: the operation has the current source
/// last. Of tokens [begin, end).
std::vector<double> edited_weights(PassState& pass, int r, const ReadEdit& edit, std::int64_t begin, std::int64_t end) {
  const std::int64_t n = pass.read(r).columns.size() - 1, tokens = end - begin;
  const auto extras = static_cast<std::int64_t>(edit.extra.size()), columns = n + 1 + extras;
  std::vector<double> alpha;
  if (edit.logits) {
    const std::vector<double> all = read_logits(pass, r);
    alpha.assign(all.begin() + begin * (n + 1), all.begin() + end * (n + 1));
    edit.logits(alpha);
    softmax_rows(alpha, static_cast<std::size_t>(n + 1));
    if (!edit.alpha) return alpha;
  } else {
    alpha = kernels::host_values<double>(pass.at(r).state.alpha.rows(begin, end), pass.stream);
  }
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
    s.rows = kernels::OwnedTensor(kernels::DType::i32, device, {tokens});
  }
  if (s.columns < columns) {
    for (kernels::OwnedTensor* table : {&s.score, &s.alpha, &s.given})
      *table = kernels::OwnedTensor(storage, device, {tokens, columns});
    s.columns = columns;
  }
  while (static_cast<std::int64_t>(s.extra.size()) < extras)
    s.extra.emplace_back(activation, device, std::initializer_list<std::int64_t>{tokens, pass.config.hidden_size});
}

/// edit_read() of a read that is not routed: its partial, of weight 1, and the extra values, added on the host.
void edit_plain_read(PassState& pass, EditScratch& s, int r, const ReadEdit& edit, const Rows& rows) {
  const std::int64_t tokens = rows.end - rows.begin, d = pass.config.hidden_size;
  const std::size_t columns = 1 + edit.extra.size(), width = static_cast<std::size_t>(d);
  std::vector<double> h = kernels::host_values<double>(rows.of(pass.at(r).state.partial), pass.stream);
  const std::vector<double> alpha(static_cast<std::size_t>(tokens), 1.0);
  std::vector<double> edited(alpha.size() * columns, std::numeric_limits<double>::quiet_NaN());
  edit.alpha(alpha, edited);
  for (std::size_t i = 0; i < h.size(); ++i) h[i] *= edited[i / width * columns];
  for (std::size_t e = 0; e < edit.extra.size(); ++e) {
    const ExtraValue& extra = edit.extra[e];
    const std::vector<double> table = kernels::host_values<double>(extra.table, pass.stream);
    for (std::size_t i = 0; i < h.size(); ++i) {
      const std::size_t t = i / width, row = extra.rows.empty() ? 0 : static_cast<std::size_t>(extra.rows[t]);
      h[i] += edited[t * columns + 1 + e] * table[row * width + i % width];
    }
  }
  grow(s, pass, 1, 1);
  const kernels::Tensor value = s.extra[0].tensor.rows(0, tokens);
  kernels::cast(value, kernels::Tensor(h.data(), kernels::DType::f64, kernels::Device::cpu, {tokens, d}), pass.stream);
  kernels::add_rms_norm_forward(rows.of(pass.at(r).x), value, s.inv_rms.tensor.rows(0, tokens), {}, value,
                                pass.norm_gain(pass.model.weights(), r), pass.config.rms_norm_eps, pass.stream);
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

void forward_read_of(PassState& pass, std::int64_t sequence, int r, kernels::Tensor alpha_override, bool resumed) {
  const Rows rows(pass, sequence, 1);
  const kernels::AttnResState state = rows.of(pass.at(r).state);
  const kernels::Tensor previous =
      pass.read(r).continues && !resumed ? rows.of(pass.at(r - 1).state.partial) : kernels::Tensor{};
  if (!pass.read(r).routed) {
    kernels::add_rms_norm_forward(rows.of(pass.at(r).x), state.partial, state.inv_rms, previous, state.partial,
                                  pass.norm_gain(pass.model.weights(), r), pass.config.rms_norm_eps, pass.stream);
    return;
  }
  const SourceTensors sources = rows.of(pass.sources_of(r));
  kernels::attn_res_forward(rows.of(pass.at(r).x), state, previous, state.partial, sources.view(),
                            pass.params_of(r, sequence), alpha_override, pass.stream);
}

void edit_read(PassState& pass, EditScratch& s, int r, const ReadEdit& edit, std::int64_t first_sequence,
               std::int64_t sequences) {
  const kernels::Range range("edit read");
  const Rows rows(pass, first_sequence, sequences);
  if (!pass.read(r).routed) return edit_plain_read(pass, s, r, edit, rows);
  const std::int64_t tokens = rows.end - rows.begin, d = pass.config.hidden_size;
  const auto extras = static_cast<std::int64_t>(edit.extra.size());
  const auto n = static_cast<std::int64_t>(pass.read(r).sources.size()), columns = n + 1 + extras;
  const kernels::AttnResState state = rows.of(pass.at(r).state);

  std::vector<double> weights = edited_weights(pass, r, edit, rows.begin, rows.end);
  grow(s, pass, columns, extras);
  const auto table = [&](const kernels::OwnedTensor& owned) { return owned.tensor.slice(0, {tokens, columns}); };
  const auto first_rows = [&](const kernels::OwnedTensor& owned) { return owned.tensor.rows(0, tokens); };
  const kernels::Tensor given = table(s.given);
  kernels::cast(given, kernels::Tensor(weights.data(), kernels::DType::f64, kernels::Device::cpu, {tokens, columns}),
                pass.stream);
  SourceTensors sources = rows.of(pass.sources_of(r));
  for (std::size_t e = 0; e < edit.extra.size(); ++e) {
    const ExtraValue& extra = edit.extra[e];
    const kernels::Tensor value = first_rows(s.extra[e]), of_token = first_rows(s.rows);
    if (extra.rows.empty()) {
      kernels::fill(of_token, 0.0, pass.stream);
    } else {
      std::vector<std::int32_t> host = extra.rows;
      kernels::copy(of_token, kernels::Tensor(host.data(), kernels::DType::i32, kernels::Device::cpu, {tokens}),
                    pass.stream);
      kernels::synchronize(pass.stream);  // before `host` goes
    }
    kernels::Tensor from = extra.table;
    if (!from) from = extra.source < n ? sources.values[static_cast<std::size_t>(extra.source)] : state.partial;
    kernels::embedding_forward(value, of_token, from.view({from.numel() / d, d}), pass.stream);
    sources.values.push_back(value);
    sources.inv_rms.push_back(state.inv_rms);  // of the right shape; with a given alpha no score is used
  }
  kernels::AttnResParams params = pass.params_of(r);
  params.logit_bias = {};
  kernels::attn_res_forward(rows.of(pass.at(r).x),
                            {.partial = state.partial,
                             .inv_rms = first_rows(s.inv_rms),
                             .score = table(s.score),
                             .alpha = table(s.alpha),
                             .h_inv_rms = first_rows(s.h_inv_rms)},
                            kernels::Tensor{}, state.partial, sources.view(), params, given, pass.stream);
}

std::vector<double> read_logits(PassState& pass, int read) {
  const ReadActivations& a = pass.at(read);
  std::vector<double> out = kernels::host_values<double>(a.state.score, pass.stream);
  std::vector<double> bias = kernels::host_values<double>(a.logit_bias, pass.stream);
  const auto columns = static_cast<std::size_t>(a.logit_bias.shape[1]);
  if (const kernels::Tensor& learned = pass.model.weights().reads[static_cast<std::size_t>(read)].bias) {
    const double last = kernels::host_values<double>(learned, pass.stream).front();
    for (std::size_t i = columns - 1; i < bias.size(); i += columns) bias[i] += last;
  }
  const std::size_t tokens_of_bias = out.size() / bias.size();  // one for all sequences, or one for each
  for (std::size_t i = 0; i < out.size(); ++i) out[i] += bias[i / columns / tokens_of_bias * columns + i % columns];
  return out;
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
