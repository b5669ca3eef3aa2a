// What Pass::backward() says at each read: the gradient at the input of the read's sublayer.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <tuple>

#include "kernels/ops.h"
#include "model/pass/pass.h"
#include "tests/model/pass/micro.h"

namespace routescope::model {
namespace {

constexpr kernels::DType f64 = kernels::DType::f64;

class BackwardAtRead : public ::testing::TestWithParam<std::tuple<micro::Mode, Recompute>> {
 protected:
  BackwardAtRead()
      : config_(micro::config(std::get<0>(GetParam()))), model_(config_, {.storage = f64, .operands = f64}) {
    micro::randomize(model_, 3);
  }
  using Gradients = std::map<int, std::vector<double>>;
  /// By read; `flat` gets the gradients of the parameters.
  static Gradients backward(Pass& pass, const std::vector<std::int32_t>& targets, kernels::Tensor flat) {
    Gradients out;
    kernels::fill(flat, 0.0, pass.stream());
    int before = 1 << 20;
    pass.backward(targets, 0.5, flat, [&](int r, kernels::Tensor dx, kernels::Tensor) {
      EXPECT_LT(r, before);
      before = r;
      out[r] = kernels::host_values<double>(dx, pass.stream());
    });
    return out;
  }
  kernels::Tensor gain_of(const Weights& weights, const Read& read) const {
    if (read.sublayer == Sublayer::final) return weights.final_norm;
    const LayerWeights& layer = weights.layers[static_cast<std::size_t>(read.layer)];
    return read.sublayer == Sublayer::attn ? layer.attn_norm : layer.mlp_norm;
  }

  ModelConfig config_;
  Model model_;
  std::vector<std::int32_t> ids_ = micro::tokens(10, 13, 1), targets_ = micro::tokens(10, 13, 2),
                            others_ = micro::tokens(10, 13, 3);
};

/// x = gain * h s, so that the gradient of the gain is the sum over tokens of dx * x / gain.
TEST_P(BackwardAtRead, TheGradientAtTheInputMakesThatOfTheGain) {
  Pass pass(model_, 2, 5, Pass::Kind::train, {.recompute = std::get<1>(GetParam())});
  const kernels::OwnedTensor flat(f64, kernels::Device::cpu, {model_.layout().total()});
  const Weights gradients(config_, model_.layout(), flat.tensor);
  pass.forward(ids_);
  const Gradients dx = backward(pass, targets_, flat.tensor);
  const auto d = static_cast<std::size_t>(config_.hidden_size);
  ASSERT_EQ(dx.size(), model_.plan().reads.size());
  for (const auto& [r, gradient] : dx) {
    const Read& read = model_.plan().reads[static_cast<std::size_t>(r)];
    const std::size_t n = read.routed ? read.columns.size() : 1;
    const std::vector<double> alpha =
        read.routed ? kernels::host_values<double>(pass.alpha(r), pass.stream()) : std::vector<double>(10, 1.0);
    std::vector<double> expected(d, 0.0);
    for (std::size_t t = 0; t < 10; ++t) {
      std::vector<double> h(d, 0.0);
      double squares = 0;
      for (std::size_t k = 0; k < d; ++k) {
        for (std::size_t i = 0; i < n; ++i)
          h[k] += alpha[t * n + i] * pass.partial(i + 1 < n ? read.sources[i] : r).as<double>()[t * d + k];
        squares += h[k] * h[k];
      }
      for (std::size_t k = 0; k < d; ++k)
        expected[k] += gradient[t * d + k] * h[k] / std::sqrt(squares / static_cast<double>(d) + config_.rms_norm_eps);
    }
    const kernels::Tensor found = gain_of(gradients, read);
    for (std::size_t k = 0; k < d; ++k) EXPECT_NEAR(found.as<double>()[k], expected[k], 1e-10) << read.name << " " << k;
  }
}

TEST_P(BackwardAtRead, OneForwardPassServesSeveralBackwardPasses) {
  const kernels::OwnedTensor flat(f64, kernels::Device::cpu, {model_.layout().total()}),
      other(f64, kernels::Device::cpu, {model_.layout().total()});
  const auto fresh = [&](const std::vector<std::int32_t>& targets, kernels::Tensor to) {
    Pass pass(model_, 2, 5, Pass::Kind::train);
    pass.forward(ids_);
    return backward(pass, targets, to);
  };
  Pass pass(model_, 2, 5, Pass::Kind::train, {.recompute = std::get<1>(GetParam())});
  pass.forward(ids_);
  const double loss = pass.loss(others_);
  backward(pass, targets_, flat.tensor);
  EXPECT_DOUBLE_EQ(pass.loss(others_), loss);
  const Gradients again = backward(pass, others_, flat.tensor), expected = fresh(others_, other.tensor);
  for (const auto& [r, gradient] : expected) {
    ASSERT_EQ(again.at(r).size(), gradient.size());
    for (std::size_t i = 0; i < gradient.size(); ++i) EXPECT_NEAR(again.at(r)[i], gradient[i], 1e-12) << r;
  }
  for (std::int64_t i = 0; i < flat.tensor.numel(); ++i)
    EXPECT_NEAR(flat.tensor.as<double>()[i], other.tensor.as<double>()[i], 1e-11) << i;
}

TEST_P(BackwardAtRead, LogitsOfReadsMakeTheirWeights) {
  Pass pass(model_, 2, 5, Pass::Kind::infer);
  RoutingIntervention intervention;
  intervention.logit_bias.assign(model_.plan().reads.size(),
                                 std::vector<double>(static_cast<std::size_t>(model_.plan().num_columns()), 0.25));
  for (std::vector<double>& of_read : intervention.logit_bias)
    if (!of_read.empty()) of_read.back() = -0.5;
  pass.forward(ids_, &intervention);
  for (int r = 0; r < model_.plan().num_routed(); ++r) {
    const std::size_t n = model_.plan().reads[static_cast<std::size_t>(r)].columns.size();
    const std::vector<double> logits = pass.read_logits(r),
                              alpha = kernels::host_values<double>(pass.alpha(r), pass.stream());
    ASSERT_EQ(logits.size(), alpha.size());
    for (std::size_t t = 0; t < 10; ++t) {
      double sum = 0;
      for (std::size_t i = 0; i < n; ++i) sum += std::exp(logits[t * n + i]);
      for (std::size_t i = 0; i < n; ++i) EXPECT_NEAR(alpha[t * n + i], std::exp(logits[t * n + i]) / sum, 1e-12);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Modes, BackwardAtRead,
                         ::testing::Combine(::testing::ValuesIn(micro::modes()),
                                            ::testing::Values(Recompute::none, Recompute::attention)),
                         [](const auto& each) {
                           return std::get<0>(each.param).name +
                                  (std::get<1>(each.param) == Recompute::none ? "" : "_recomputed");
                         });

}  // namespace
}  // namespace routescope::model
