// The Attention Residuals read against finite differences, and against closed forms (MATH.md, "Wrapping"). A group of
// reads shares its sources, as within a block. The deferred operation adds the gradients of these sources.
#include <gtest/gtest.h>

#include <limits>
#include <memory>

#include "tests/kernels/finite_differences.h"

namespace routescope::testing {
namespace {

const kernels::Stream kStream;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kEps = 1e-6;

struct Options {
  std::int64_t n = 3;
  int reads = 1;
  bool last_source_is_partial = false;
  bool learned_bias = false;
  bool mask = false;
  bool alpha_override = false;
  double query_spread = 0.5;
  double key_gain_center = 1;
};

std::string describe(const Options& o) {
  return std::to_string(o.n) + " sources, " + std::to_string(o.reads) + " reads" +
         (o.last_source_is_partial ? ", aliased" : "") + (o.learned_bias ? ", bias" : "") + (o.mask ? ", mask" : "") +
         (o.alpha_override ? ", alpha given" : "");
}

/// A chain of reads over n sources: p_r = p_{r-1} + y_r, loss = sum over reads of <x_r, weight_r>.
/// With `last_source_is_partial` the last source is the first read's partial.
class Chain {
 public:
  static constexpr std::int64_t kTokens = 3, kWidth = 6;

  struct Read {
    Values y, query, key_gain, norm_gain, bias, logit_bias, alpha_override;
    Values x, partial, inv_rms, score, alpha, h_inv_rms;
    Values weight;  // dx
    kernels::AttnResState state() const { return {partial, inv_rms, score, alpha, h_inv_rms}; }
    kernels::AttnResParams params() const { return {query, key_gain, bias, logit_bias, norm_gain, kEps}; }
  };

  explicit Chain(const Options& options) : options_(options) {
    const std::int64_t n = options.n;
    for (std::int64_t i = 0; i < n; ++i) {
      values_.push_back(random_values({kTokens, kWidth}, next(), 0.5 + 0.5 * static_cast<double>(i)));
      inv_rms_.push_back(zeros({kTokens}));
    }
    start = random_values({kTokens, kWidth}, next());
    for (int r = 0; r < options.reads; ++r) {
      Read read;
      read.y = random_values({kTokens, kWidth}, next());
      read.query = random_values({kWidth}, next(), options.query_spread);
      read.key_gain = random_values({kWidth}, next(), 0.3 * options.key_gain_center, options.key_gain_center);
      read.norm_gain = random_values({kWidth}, next(), 0.3, 1);
      read.weight = random_values({kTokens, kWidth}, next());
      if (options.learned_bias) read.bias = random_values({1}, next());
      if (options.mask) {
        read.logit_bias = random_values({n + 1}, next());
        for (std::int64_t i = r; i < n; i += 2) read.logit_bias.data()[i] = -kInfinity;
      }
      if (options.alpha_override) read.alpha_override = random_values({kTokens, n + 1}, next(), 0.5);
      read.x = zeros({kTokens, kWidth});
      read.partial = zeros({kTokens, kWidth});
      read.inv_rms = zeros({kTokens});
      read.score = zeros({kTokens, n + 1});
      read.alpha = zeros({kTokens, n + 1});
      read.h_inv_rms = zeros({kTokens});
      reads.push_back(std::move(read));
    }
  }

  double loss() {
    // The sources' inverse RMS is a function of the sources. A unit gain norm computes it.
    const Values unit({kWidth}, std::vector<double>(kWidth, 1.0)), x = zeros({kTokens, kWidth}),
                                                                   p = zeros({kTokens, kWidth});
    for (std::size_t i = 0; i < values_.size(); ++i)
      kernels::add_rms_norm_forward(x, p, inv_rms_[i], values_[i], kernels::Tensor(), unit, kEps, kStream);
    double sum = 0;
    kernels::Tensor before = start;
    for (const Read& read : reads) {
      kernels::attn_res_forward(read.x, read.state(), before, read.y, sources(), read.params(), read.alpha_override,
                                kStream);
      before = read.partial;
      sum += inner_product(read.x, read.weight);
    }
    return sum;
  }

  kernels::AttnResSources sources() {
    tensors_.clear();
    scales_.clear();
    for (std::size_t i = 0; i < values_.size(); ++i) {
      const bool partial = options_.last_source_is_partial && i + 1 == values_.size();
      tensors_.push_back(partial ? reads[0].partial : values_[i]);
      scales_.push_back(partial ? reads[0].inv_rms : inv_rms_[i]);
    }
    return {tensors_, scales_};
  }

  struct Gradients {
    std::vector<Values> sources, y, query, key_gain, norm_gain, bias;
    Values start;
  };

  Gradients backward() {
    Gradients out;
    for (std::int64_t i = 0; i < options_.n; ++i) out.sources.push_back(zeros({kTokens, kWidth}));
    out.start = zeros({kTokens, kWidth});
    const std::size_t count = reads.size();
    out.y.resize(count);
    out.query.resize(count);
    out.key_gain.resize(count);
    out.norm_gain.resize(count);
    out.bias.resize(count);
    std::vector<kernels::AttnResDeferred> deferred(count);
    std::vector<Values> kept;  // owns what `deferred` points at
    for (std::size_t r = count; r-- > 0;) {
      const Read& read = reads[r];
      out.query[r] = zeros({kWidth});
      out.key_gain[r] = zeros({kWidth});
      out.norm_gain[r] = zeros({kWidth});
      if (options_.learned_bias) out.bias[r] = zeros({1});
      kept.push_back(random_values({kTokens, kWidth}, 500));
      const kernels::Tensor dh = kept.back();
      kept.push_back(random_values({kTokens, options_.n + 1}, 501));
      const kernels::Tensor dlogit = kept.back();
      kernels::attn_res_backward(dh, dlogit, out.start, {out.query[r], out.key_gain[r], out.bias[r], out.norm_gain[r]},
                                 read.weight, read.state(), sources(), read.params(), options_.alpha_override, kStream);
      deferred[r] = {dh, dlogit, read.alpha, read.score, read.query, read.key_gain};
      if (r == 0) {
        kernels::attn_res_backward_sources(tensors_of(out.sources), deferred, sources(), kStream);
        if (options_.last_source_is_partial) kernels::add(out.start, out.sources.back(), kStream);
      }
      out.y[r] = zeros({kTokens, kWidth});
      kernels::cast(out.y[r], out.start, kStream);
    }
    return out;
  }

  static std::vector<kernels::Tensor> tensors_of(const std::vector<Values>& values) {
    return {values.begin(), values.end()};
  }
  const Values& source(std::size_t i) const { return values_[i]; }

  Values start;
  std::vector<Read> reads;

 private:
  std::uint64_t next() { return stream_++; }

  Options options_;
  std::uint64_t stream_ = 1000;
  std::vector<Values> values_;
  std::vector<Values> inv_rms_;
  std::vector<kernels::Tensor> tensors_;
  std::vector<kernels::Tensor> scales_;
};

void expect_gradients(const Options& options) {
  SCOPED_TRACE(describe(options));
  Chain chain(options);
  const auto loss = [&] { return chain.loss(); };
  loss();
  const Chain::Gradients gradients = chain.backward();
  EXPECT_TRUE(is_gradient("start", loss, chain.start, gradients.start));
  for (std::size_t r = 0; r < chain.reads.size(); ++r) {
    const Chain::Read& read = chain.reads[r];
    EXPECT_TRUE(is_gradient("y", loss, read.y, gradients.y[r]));
    EXPECT_TRUE(is_gradient("norm_gain", loss, read.norm_gain, gradients.norm_gain[r]));
    // With one source, sources that are all the partial, or given weights, nothing depends on the routing parameters.
    const bool routed = options.n > (options.last_source_is_partial ? 1 : 0) && !options.alpha_override;
    if (!routed) {
      for (const Values* gradient : {&gradients.query[r], &gradients.key_gain[r]})
        for (const double value : values_of(*gradient)) EXPECT_NEAR(value, 0, 1e-14);
      continue;
    }
    if (options.key_gain_center != 0) {
      EXPECT_TRUE(is_gradient("query", loss, read.query, gradients.query[r]));
    }
    if (options.query_spread != 0) {
      EXPECT_TRUE(is_gradient("key_gain", loss, read.key_gain, gradients.key_gain[r]));
    }
    if (options.learned_bias) {
      EXPECT_TRUE(is_gradient("bias", loss, read.bias, gradients.bias[r]));
    }
  }
  const std::size_t own = static_cast<std::size_t>(options.n) - (options.last_source_is_partial ? 1 : 0);
  for (std::size_t i = 0; i < own; ++i) {
    bool masked = options.mask;
    for (const Chain::Read& read : chain.reads) masked = masked && read.logit_bias.data()[i] == -kInfinity;
    if (masked) {
      EXPECT_EQ(values_of(gradients.sources[i]), std::vector<double>(Chain::kTokens * Chain::kWidth, 0.0));
    } else {
      EXPECT_TRUE(is_gradient("source" + std::to_string(i), loss, chain.source(i), gradients.sources[i]));
    }
  }
}

TEST(AttnResGradients, ZeroToNineSources) {
  for (std::int64_t n = 0; n <= 9; ++n) expect_gradients({.n = n});
}

TEST(AttnResGradients, ReadsThatShareSources) {
  expect_gradients({.n = 3, .reads = 4});
  expect_gradients({.n = 2, .reads = 3, .learned_bias = true, .mask = true});
}

TEST(AttnResGradients, SourceThatIsThePartial) {
  expect_gradients({.n = 1, .last_source_is_partial = true});
  expect_gradients({.n = 4, .reads = 2, .last_source_is_partial = true, .learned_bias = true});
  expect_gradients({.n = 3, .last_source_is_partial = true, .alpha_override = true});
}

TEST(AttnResGradients, BiasesAndMasks) {
  expect_gradients({.n = 3, .learned_bias = true});
  expect_gradients({.n = 5, .mask = true});
  expect_gradients({.n = 4, .learned_bias = true, .mask = true});
}

TEST(AttnResGradients, GivenWeights) {
  expect_gradients({.n = 4, .reads = 2, .alpha_override = true});
}

/// As at initialisation: nothing may be divided by a query or a gain.
TEST(AttnResGradients, ZeroQueriesAndGains) {
  expect_gradients({.n = 3, .query_spread = 0});
  expect_gradients({.n = 3, .query_spread = 0.5, .key_gain_center = 0});
}

TEST(AttnRes, WeightsSumToOneAndMasksAreExact) {
  Chain chain({.n = 5, .reads = 2, .learned_bias = true, .mask = true});
  chain.loss();
  for (const Chain::Read& read : chain.reads) {
    for (std::int64_t t = 0; t < Chain::kTokens; ++t) {
      double sum = 0;
      for (std::int64_t i = 0; i <= 5; ++i) {
        const double alpha = read.alpha.data()[t * 6 + i];
        if (read.logit_bias.data()[i] == -kInfinity) {
          EXPECT_EQ(alpha, 0);
        }
        sum += alpha;
      }
      EXPECT_NEAR(sum, 1, 1e-15 * 6);
    }
  }
}

/// MATH.md, "Wrapping": alpha_current = e^b / (e^b + n), for n completed sources beside it, whatever the tokens.
TEST(AttnRes, WrappedWeightsEqualTheClosedForm) {
  for (const double b : {0.0, 1.0, 3.0, 10.0}) {
    Chain chain({.n = 4, .learned_bias = true, .query_spread = 0});
    chain.reads[0].bias.data()[0] = b;
    chain.loss();
    for (std::int64_t t = 0; t < Chain::kTokens; ++t) {
      for (std::int64_t i = 0; i < 4; ++i)
        EXPECT_NEAR(chain.reads[0].alpha.data()[t * 5 + i], 1 / (std::exp(b) + 4), 1e-15);
      EXPECT_NEAR(chain.reads[0].alpha.data()[t * 5 + 4], std::exp(b) / (std::exp(b) + 4), 1e-15);
    }
  }
}

/// Without sources a read is the plain residual addition and norm.
TEST(AttnRes, WithoutSourcesIsTheStandardNorm) {
  Chain chain({.n = 0});
  chain.loss();
  const Chain::Read& read = chain.reads[0];
  const Values x = zeros({Chain::kTokens, Chain::kWidth}), p = zeros({Chain::kTokens, Chain::kWidth});
  const Values inv_rms = zeros({Chain::kTokens});
  kernels::add_rms_norm_forward(x, p, inv_rms, chain.start, read.y, read.norm_gain, kEps, kStream);
  EXPECT_EQ(values_of(read.x), values_of(x));
  EXPECT_EQ(values_of(read.partial), values_of(p));
  EXPECT_EQ(values_of(read.h_inv_rms), values_of(inv_rms));
}

/// Both phases together leave what the fused read leaves, masks that leave one side nothing included.
TEST(AttnRes, PhasesEqualTheFusedRead) {
  for (std::int64_t n = 1; n <= 9; ++n) {
    for (const auto& masked : {std::pair<std::int64_t, std::int64_t>{0, 0}, {0, n}, {n, n + 1}, {0, 1}}) {
      SCOPED_TRACE(std::to_string(n) + " sources, masked from " + std::to_string(masked.first) + " up to " +
                   std::to_string(masked.second));
      Chain chain({.n = n, .reads = 2, .learned_bias = true});
      for (Chain::Read& read : chain.reads) {
        read.logit_bias = random_values({n + 1}, 900);
        for (std::int64_t i = masked.first; i < masked.second; ++i) read.logit_bias.data()[i] = -kInfinity;
      }
      chain.loss();
      kernels::Tensor before = chain.start;
      std::vector<Values> outputs(2), lses(2), scores(2);
      std::vector<kernels::AttnResPrepared> prepared;
      std::vector<kernels::AttnResParams> params;
      for (std::size_t r = 0; r < 2; ++r) {
        outputs[r] = random_values({Chain::kTokens, Chain::kWidth}, 901);
        lses[r] = random_values({Chain::kTokens}, 902);
        scores[r] = random_values({Chain::kTokens, n + 1}, 903);
        prepared.push_back({outputs[r], lses[r], scores[r]});
        params.push_back(chain.reads[r].params());
      }
      kernels::attn_res_prepare(prepared, params, chain.sources(), kStream);
      for (std::size_t r = 0; r < 2; ++r) {
        const Chain::Read& read = chain.reads[r];
        const Values x = zeros({Chain::kTokens, Chain::kWidth}), p = zeros({Chain::kTokens, Chain::kWidth});
        const Values inv_rms = zeros({Chain::kTokens}), alpha = zeros({Chain::kTokens, n + 1});
        const Values h_inv_rms = zeros({Chain::kTokens});
        kernels::attn_res_merge(x, {p, inv_rms, scores[r], alpha, h_inv_rms}, before, read.y, prepared[r], params[r],
                                kStream);
        before = read.partial;
        const auto expect_equal = [](const kernels::Tensor& actual, const kernels::Tensor& expected) {
          for (std::int64_t i = 0; i < expected.numel(); ++i)
            EXPECT_NEAR(actual.as<double>()[i], expected.as<double>()[i], 1e-13);
        };
        expect_equal(x, read.x);
        expect_equal(p, read.partial);
        expect_equal(inv_rms, read.inv_rms);
        expect_equal(scores[r], read.score);
        expect_equal(alpha, read.alpha);
        expect_equal(h_inv_rms, read.h_inv_rms);
        for (std::int64_t t = 0; t < Chain::kTokens; ++t)
          for (std::int64_t i = masked.first; i < masked.second; ++i) EXPECT_EQ(alpha.data()[t * (n + 1) + i], 0) << i;
      }
    }
  }
}

TEST(AttnRes, RoutingStatistics) {
  const Values alpha({2, 2}, {0.25, 0.75, 1, 0}), s0({2}, {0.5, 0.25}), s1({2}, {1, 2});
  const Values sums({2 + 1, 2}, {1, 1, 1, 1, 1, 1}), entropy({1}, {1});
  const kernels::Tensor inv_rms[] = {s0, s1};
  kernels::routing_statistics(sums, entropy, alpha, inv_rms, kStream);
  const double expected[] = {2.25, 1.75, 1 + 1.0625, 1 + 0.5625, 1 + 6, 1 + 1.5};
  for (int i = 0; i < 6; ++i) EXPECT_DOUBLE_EQ(sums.data()[i], expected[i]) << i;
  EXPECT_NEAR(entropy.data()[0], 1 - 0.25 * std::log(0.25) - 0.75 * std::log(0.75), 1e-15);
}

// By hand: three tokens of two sources in the plane. A long vector with a small weight; a mixture of nothing but zeros;
// two vectors that cancel, where only the shares of length are defined by their quotient.
TEST(AttnRes, ContributionStatistics) {
  const Values alpha({3, 2}, {0.25, 0.75, 0.75, 0.25, 0.5, 0.5});
  const Values v0({3, 2}, {12, 0, 0, 0, 3, 4}), v1({3, 2}, {0, 4, 0, 0, -3, -4}), sums({2, 2}, {1, 1, 1, 1});
  const kernels::Tensor values[] = {v0, v1};
  kernels::contribution_statistics(sums, alpha, values, kStream);
  const double expected[] = {1 + 0.5 + 0.75 + 0.5, 1 + 0.5 + 0.25 + 0.5, 1 + 0.5 + 0.75 + 0.5, 1 + 0.5 + 0.25 + 0.5};
  for (int i = 0; i < 4; ++i) EXPECT_DOUBLE_EQ(sums.data()[i], expected[i]) << i;

  // The current source points away from the mixture: it has length, but takes from h.
  const Values weights({1, 2}, {0.5, 0.5}), big({1, 2}, {4, 0}), opposed({1, 2}, {-2, 0}), of_two({2, 2}, {0, 0, 0, 0});
  const kernels::Tensor two[] = {big, opposed};
  kernels::contribution_statistics(of_two, weights, two, kStream);
  const double signed_shares[] = {2, -1, 2.0 / 3, 1.0 / 3};
  for (int i = 0; i < 4; ++i) EXPECT_DOUBLE_EQ(of_two.data()[i], signed_shares[i]) << i;
}

}  // namespace
}  // namespace routescope::testing
