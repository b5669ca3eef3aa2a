// n completed sources, R reads in a group (model/MATH.md, "Cost"). Bytes of a token, without the f32 scalars, which
// count, too:
//   attn_res_forward            p_in, y, n sources in; p, x out                        (n + 4) d b
//   attn_res_prepare            n sources in; R outputs out                            (n + R) d b
//   attn_res_merge              output, p_in, y in; p, x out                           5 d b
//   attn_res_backward           dx, p, n sources, dp in; dp, dh out                    (n + 5) d b
//   attn_res_backward_sources   R dh, n sources, n gradients in; n gradients out       (R + 3 n) d b
#include "train/bench/card/read_traffic.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace routescope::train {

namespace {

using Call = TrafficBench::Call;

constexpr std::int64_t kGroup = 8;  // two reads a layer, four layers a block

/// One input set: n sources, and the inputs and outputs of reads over them.
struct ReadSet {
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

/// The measurements over n completed sources.
class ReadTraffic {
 public:
  ReadTraffic(TrafficBench& bench, std::int64_t n)
      : bench_(bench), n_(n), d_(bench.shape().model.hidden_size), tokens_(bench.shape().tokens()) {}

  void measure() {
    // Scalars: inv_rms of the sources in; inv_rms, h_inv_rms, score, alpha out.
    measure("attn_res_forward", "(n + 4) d b", bytes(n_ + 4, n_ + 2 + 2 * (n_ + 1)), forward_aim,
            &ReadTraffic::forward);
    // Scalars: inv_rms of the sources in; n scores and lse of each read out.
    measure("attn_res_prepare, R = 8", "(n + R) d b", bytes(n_ + kGroup, n_ + kGroup * (n_ + 1)), forward_aim,
            &ReadTraffic::prepare);
    // Scalars: lse and n scores in; the current source's score, alpha, inv_rms, h_inv_rms out.
    measure("attn_res_merge", "5 d b", bytes(5, 1 + n_ + 1 + (n_ + 1) + 2), forward_aim, &ReadTraffic::merge);
    // Scalars: inv_rms of the sources and the current, h_inv_rms, score, alpha in; dlogit out.
    measure("attn_res_backward", "(n + 5) d b", bytes(n_ + 5, n_ + 2 + 3 * (n_ + 1)), backward_aim,
            &ReadTraffic::backward);
    // Scalars: inv_rms of the sources, and n columns of alpha, score, dlogit of each read in.
    measure("attn_res_backward_sources, R = 8", "(R + 3 n) d b", bytes(kGroup + 3 * n_, n_ + 3 * kGroup * n_),
            backward_aim, &ReadTraffic::backward_sources);
  }

 private:
  void measure(const std::string& name, const std::string& formula, double bytes, double aim,
               Call (ReadTraffic::*make)()) {
    bench_.measure(name + ", n = " + std::to_string(n_), formula, bytes, aim, [this, make] { return (this->*make)(); });
  }

  // ---- one input set each, and a call on it ----

  Call forward() {
    const auto set = read_set(1);
    ReadSet::One& read = set->reads[0];
    read.x = bench_.output(d_);
    read.p_in = bench_.activation(d_);
    read.y = bench_.activation(d_);
    return [set, stream = bench_.stream()] {
      const ReadSet::One& r = set->reads[0];
      kernels::attn_res_forward(r.x, r.state, r.p_in, r.y, set->sources(), r.params, kernels::Tensor{}, stream);
    };
  }

  Call prepare() {
    const auto set = read_set(kGroup);
    std::vector<kernels::AttnResPrepared> prepared;
    std::vector<kernels::AttnResParams> params;
    for (const ReadSet::One& read : set->reads) {
      prepared.push_back({.output = bench_.output(d_), .lse = bench_.real({tokens_}), .score = read.state.score});
      params.push_back(read.params);
    }
    return [set, prepared, params, stream = bench_.stream()] {
      kernels::attn_res_prepare(prepared, params, set->sources(), stream);
    };
  }

  Call merge() {
    const auto set = read_set(1);
    ReadSet::One& read = set->reads[0];
    read.prepared = {.output = bench_.activation(d_), .lse = bench_.real({tokens_}), .score = read.state.score};
    read.x = bench_.output(d_);
    read.p_in = bench_.activation(d_);
    read.y = bench_.activation(d_);
    return [set, stream = bench_.stream()] {
      const ReadSet::One& r = set->reads[0];
      kernels::attn_res_merge(r.x, r.state, r.p_in, r.y, r.prepared, r.params, stream);
    };
  }

  Call backward() {
    const auto set = read_set(1);
    ReadSet::One& read = set->reads[0];
    read.dx = bench_.activation(d_);
    read.dh = bench_.output(d_);
    read.dp = bench_.activation(d_);
    read.dlogit = bench_.real({tokens_, n_ + 1});
    return [set, stream = bench_.stream()] {
      const ReadSet::One& r = set->reads[0];
      kernels::attn_res_backward(r.dh, r.dlogit, r.dp, r.grads, r.dx, r.state, set->sources(), r.params, false, stream);
    };
  }

  Call backward_sources() {
    const auto set = read_set(kGroup);
    for (std::int64_t i = 0; i < n_; ++i) set->dsources.push_back(bench_.activation(d_));
    std::vector<kernels::AttnResDeferred> deferred;
    for (const ReadSet::One& read : set->reads) {
      deferred.push_back({.dh = bench_.activation(d_),
                          .dlogit = bench_.real({tokens_, n_ + 1}),
                          .alpha = read.state.alpha,
                          .score = read.state.score,
                          .query = read.params.query,
                          .key_gain = read.params.key_gain});
    }
    return [set, deferred, stream = bench_.stream()] {
      kernels::attn_res_backward_sources(set->dsources, deferred, set->sources(), stream);
    };
  }

  std::shared_ptr<ReadSet> read_set(std::int64_t reads) {
    auto set = std::make_shared<ReadSet>();
    for (std::int64_t i = 0; i < n_; ++i) {
      set->values.push_back(bench_.activation(d_));
      set->inv_rms.push_back(bench_.constant({tokens_}, 1.0));  // of N(0, 1)
    }
    for (std::int64_t r = 0; r < reads; ++r) {
      ReadSet::One one;
      one.state = {.partial = bench_.activation(d_),
                   .inv_rms = bench_.constant({tokens_}, 1.0),
                   .score = bench_.real({tokens_, n_ + 1}),
                   .alpha = bench_.constant({tokens_, n_ + 1}, 1.0 / static_cast<double>(n_ + 1)),
                   .h_inv_rms = bench_.constant({tokens_}, 1.0)};
      one.params.query = bench_.real({d_});
      one.params.key_gain = bench_.real({d_});
      one.params.norm_gain = bench_.real({d_});
      one.params.logit_bias = bench_.real({n_ + 1});
      one.params.eps = bench_.shape().model.rms_norm_eps;
      one.grads = {
          .query = bench_.real({d_}), .key_gain = bench_.real({d_}), .bias = {}, .norm_gain = bench_.real({d_})};
      set->reads.push_back(one);
    }
    return set;
  }

  /// Bytes of a call that moves so many rows [d] of activations and so many f32 scalars for each token.
  double bytes(std::int64_t rows, std::int64_t scalars) const {
    return bench_.activation_bytes(rows * tokens_ * d_) + 4.0 * static_cast<double>(scalars * tokens_);
  }

  TrafficBench& bench_;
  std::int64_t n_, d_, tokens_;
};

/// routing_statistics over 8 sources and the current one.
void measure_statistics(TrafficBench& bench) {
  const std::int64_t tokens = bench.shape().tokens(), columns = 9;
  bench.measure("routing_statistics, n = 8", "8 (n + 1)", 8.0 * static_cast<double>(tokens * columns), 0,
                [&bench, tokens]() -> Call {
                  std::vector<kernels::Tensor> inv_rms;
                  for (std::int64_t i = 0; i < columns; ++i) inv_rms.push_back(bench.constant({tokens}, 1.0));
                  return [inv_rms, stream = bench.stream(),
                          sums = bench.data().filled(kernels::DType::f64, {3, columns}, 0.0),
                          entropy = bench.data().filled(kernels::DType::f64, {1}, 0.0),
                          alpha = bench.constant({tokens, columns}, 1.0 / static_cast<double>(columns))] {
                    kernels::routing_statistics(sums, entropy, alpha, inv_rms, stream);
                  };
                });
}

}  // namespace

void measure_reads(TrafficBench& bench) {
  for (const std::int64_t n : {1, 4, 8}) ReadTraffic(bench, n).measure();
  measure_statistics(bench);
}

}  // namespace routescope::train
