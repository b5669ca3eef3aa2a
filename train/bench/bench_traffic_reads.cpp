// The reads of Attention Residuals (MATH.md, "Cost"), n completed sources, R reads in a group.
// Bytes of a token, without the f32 scalars, which are counted too:
//   attn_res_forward            p_in, y, n sources in; p, x out                        (n + 4) d b
//   attn_res_prepare            n sources in; R outputs out                            (n + R) d b
//   attn_res_merge              output, p_in, y in; p, x out                           5 d b
//   attn_res_backward           dx, p, n sources, dp in; dp, dh out                    (n + 5) d b
//   attn_res_backward_sources   R dh, n sources, n gradients in; n gradients out       (R + 3 n) d b
#include <algorithm>

#include "train/bench/bench_traffic.h"

namespace routescope::train {

namespace {

constexpr double kForwardAim = 0.90, kBackwardAim = 0.85;
constexpr std::int64_t kGroup = 8;  // two reads a layer, four layers a block

}  // namespace

/// One input set: n sources and what `reads` reads of them are given and leave.
struct TrafficBench::ReadSet {
  struct One {
    kernels::AttnResState state;
    kernels::AttnResParams params;
    kernels::AttnResParamGrads grads;
    kernels::AttnResPrepared prepared;
    kernels::Tensor x, p_in, y, dx, dh, dp, dlogit;
  };
  std::vector<kernels::Tensor> values, inv_rms, dsources;
  std::vector<One> reads;

  kernels::AttnResSources sources() const { return {values, inv_rms}; }
};

std::shared_ptr<TrafficBench::ReadSet> TrafficBench::read_set(std::int64_t n, std::int64_t reads) {
  const std::int64_t d = shape_.model.hidden_size, tokens = shape_.tokens();
  auto set = std::make_shared<ReadSet>();
  for (std::int64_t i = 0; i < n; ++i) {
    set->values.push_back(activation(d));
    set->inv_rms.push_back(data_.filled(kernels::DType::f32, {tokens}, 1.0));  // of N(0, 1)
  }
  for (std::int64_t r = 0; r < reads; ++r) {
    ReadSet::One one;
    one.state = {.partial = activation(d),
                 .inv_rms = data_.filled(kernels::DType::f32, {tokens}, 1.0),
                 .score = real({tokens, n + 1}),
                 .alpha = data_.filled(kernels::DType::f32, {tokens, n + 1}, 1.0 / static_cast<double>(n + 1)),
                 .h_inv_rms = data_.filled(kernels::DType::f32, {tokens}, 1.0)};
    one.params.query = real({d});
    one.params.key_gain = real({d});
    one.params.norm_gain = real({d});
    one.params.logit_bias = real({n + 1});
    one.params.eps = shape_.model.rms_norm_eps;
    one.grads = {.query = real({d}), .key_gain = real({d}), .bias = {}, .norm_gain = real({d})};
    set->reads.push_back(one);
  }
  return set;
}

void TrafficBench::reads() {
  for (const std::int64_t n : {1, 4, 8}) reads_over(n);
  const std::int64_t tokens = shape_.tokens(), columns = 9;
  measure("routing_statistics, n = 8", "8 (n + 1)", 8.0 * static_cast<double>(tokens * columns), 0,
          [&, this]() -> Call {
            std::vector<kernels::Tensor> inv_rms;
            for (std::int64_t i = 0; i < columns; ++i)
              inv_rms.push_back(data_.filled(kernels::DType::f32, {tokens}, 1.0));
            return [this, inv_rms, sums = data_.filled(kernels::DType::f64, {3, columns}, 0.0),
                    entropy = data_.filled(kernels::DType::f64, {1}, 0.0),
                    alpha = data_.filled(kernels::DType::f32, {tokens, columns}, 1.0 / static_cast<double>(columns))] {
              kernels::routing_statistics(sums, entropy, alpha, inv_rms, data_.stream());
            };
          });
}

void TrafficBench::reads_over(std::int64_t n) {
  const std::int64_t d = shape_.model.hidden_size, tokens = shape_.tokens();
  const std::string over = ", n = " + std::to_string(n);
  const auto rows = [&](std::int64_t wide_rows, std::int64_t scalars) {
    return wide(wide_rows * tokens * d) + 4.0 * static_cast<double>(scalars * tokens);
  };

  // Scalars: inv_rms of the sources in; inv_rms, h_inv_rms, score, alpha out.
  measure("attn_res_forward" + over, "(n + 4) d b", rows(n + 4, n + 2 + 2 * (n + 1)), kForwardAim, [&, this]() -> Call {
    const auto set = read_set(n, 1);
    ReadSet::One& read = set->reads[0];
    read.x = unwritten(d);
    read.p_in = activation(d);
    read.y = activation(d);
    return [this, set] {
      const ReadSet::One& r = set->reads[0];
      kernels::attn_res_forward(r.x, r.state, r.p_in, r.y, set->sources(), r.params, kernels::Tensor{}, data_.stream());
    };
  });

  // Scalars: inv_rms of the sources in; n scores and lse of each read out.
  measure("attn_res_prepare, R = 8" + over, "(n + R) d b", rows(n + kGroup, n + kGroup * (n + 1)), kForwardAim,
          [&, this]() -> Call {
            const auto set = read_set(n, kGroup);
            std::vector<kernels::AttnResPrepared> prepared;
            std::vector<kernels::AttnResParams> params;
            for (const ReadSet::One& read : set->reads) {
              prepared.push_back({.output = unwritten(d), .lse = real({tokens}), .score = read.state.score});
              params.push_back(read.params);
            }
            return [this, set, prepared, params] {
              kernels::attn_res_prepare(prepared, params, set->sources(), data_.stream());
            };
          });

  // Scalars: lse and n scores in; the current source's score, alpha, inv_rms, h_inv_rms out.
  measure("attn_res_merge" + over, "5 d b", rows(5, 1 + n + 1 + (n + 1) + 2), kForwardAim, [&, this]() -> Call {
    const auto set = read_set(n, 1);
    ReadSet::One& read = set->reads[0];
    read.prepared = {.output = activation(d), .lse = real({tokens}), .score = read.state.score};
    read.x = unwritten(d);
    read.p_in = activation(d);
    read.y = activation(d);
    return [this, set] {
      const ReadSet::One& r = set->reads[0];
      kernels::attn_res_merge(r.x, r.state, r.p_in, r.y, r.prepared, r.params, data_.stream());
    };
  });

  // Scalars: inv_rms of the sources and the current, h_inv_rms, score, alpha in; dlogit out.
  measure("attn_res_backward" + over, "(n + 5) d b", rows(n + 5, n + 2 + 3 * (n + 1)), kBackwardAim,
          [&, this]() -> Call {
            const auto set = read_set(n, 1);
            ReadSet::One& read = set->reads[0];
            read.dx = activation(d);
            read.dh = unwritten(d);
            read.dp = activation(d);
            read.dlogit = real({tokens, n + 1});
            return [this, set] {
              const ReadSet::One& r = set->reads[0];
              kernels::attn_res_backward(r.dh, r.dlogit, r.dp, r.grads, r.dx, r.state, set->sources(), r.params, false,
                                         data_.stream());
            };
          });

  // Scalars: inv_rms of the sources, and n columns of alpha, score, dlogit of each read in.
  measure("attn_res_backward_sources, R = 8" + over, "(R + 3 n) d b", rows(kGroup + 3 * n, n + 3 * kGroup * n),
          kBackwardAim, [&, this]() -> Call {
            const auto set = read_set(n, kGroup);
            for (std::int64_t i = 0; i < n; ++i) set->dsources.push_back(activation(d));
            std::vector<kernels::AttnResDeferred> deferred;
            for (const ReadSet::One& read : set->reads) {
              deferred.push_back({.dh = activation(d),
                                  .dlogit = real({tokens, n + 1}),
                                  .alpha = read.state.alpha,
                                  .score = read.state.score,
                                  .query = read.params.query,
                                  .key_gain = read.params.key_gain});
            }
            return [this, set, deferred] {
              kernels::attn_res_backward_sources(set->dsources, deferred, set->sources(), data_.stream());
            };
          });
}

}  // namespace routescope::train
