// Properties of a pass: weights sum to one, masks mask, a resumed pass equals a whole one, precisions and threads
// agree.
#include "model/pass/pass.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <cstring>

#include "data/base/error.h"
#include "model/pass/activations.h"
#include "tests/model/pass/micro.h"

namespace routescope::model {
namespace {

constexpr std::int64_t kBatch = 3, kLength = 7;

/// Wide enough that no token's partial is nearly zero: a norm would there magnify roundings without bound.
ModelConfig wide(const micro::Mode& mode) {
  ModelConfig config = micro::config(mode);
  config.hidden_size = 48;
  config.intermediate_size = 80;
  config.head_dim = 16;
  config.initializer_range = 0.2;
  return config;
}

class EveryMode : public ::testing::TestWithParam<micro::Mode> {
 protected:
  ModelConfig config = wide(GetParam());
  std::vector<std::int32_t> ids = micro::tokens(kBatch * kLength, config.vocab_size, 3);
  std::vector<std::int32_t> targets = micro::tokens(kBatch * kLength, config.vocab_size, 4);

  Model model(ModelOptions options = {}) const {
    Model out(config, options);
    micro::randomize(out, 5);
    return out;
  }
  std::vector<float> nll(Pass& pass) const {
    std::vector<float> out(targets.size());
    pass.nll(targets, out);
    return out;
  }
};

class RoutedMode : public EveryMode {};

TEST_P(RoutedMode, AlphaSumsToOne) {
  const Model m = model();
  Pass pass(m, kBatch, kLength, Pass::Kind::infer);
  pass.forward(ids);
  for (int r = 0; r < m.plan().num_routed(); ++r) {
    const kernels::Tensor alpha = pass.alpha(r);
    for (std::int64_t t = 0; t < alpha.shape[0]; ++t) {
      double sum = 0;
      for (std::int64_t i = 0; i < alpha.shape[1]; ++i) sum += alpha.as<float>()[t * alpha.shape[1] + i];
      EXPECT_NEAR(sum, 1.0, 4e-7 * static_cast<double>(alpha.shape[1])) << "read " << r << " token " << t;
    }
  }
}

TEST_P(EveryMode, SinglePrecisionFollowsDouble) {
  const Model fast = model(), exact = model({.storage = kernels::DType::f64, .operands = kernels::DType::f64});
  // The same numbers in both: the f64 model's draws rounded to f32.
  for (const ParameterInfo& info : fast.layout().all())
    kernels::cast(exact.parameter(info.name), fast.parameter(info.name), kernels::Stream{});
  Pass a(fast, kBatch, kLength, Pass::Kind::train), b(exact, kBatch, kLength, Pass::Kind::train);
  a.forward(ids);
  b.forward(ids);
  const auto fast_nll = nll(a), exact_nll = nll(b);
  for (std::size_t i = 0; i < fast_nll.size(); ++i) EXPECT_NEAR(fast_nll[i], exact_nll[i], 2e-5);
  kernels::OwnedTensor ga(kernels::DType::f32, kernels::Device::cpu, {fast.layout().total()}),
      gb(kernels::DType::f64, kernels::Device::cpu, {fast.layout().total()});
  a.backward(targets, 0.1, ga.tensor);
  b.backward(targets, 0.1, gb.tensor);
  const double loss_a = a.take_loss(), loss_b = b.take_loss();
  EXPECT_NEAR(loss_a, loss_b, 2e-5 * static_cast<double>(targets.size()));
  // The bound that gradients are held to against other implementations; sharp random queries take up a tenth of it.
  double largest = 0;
  for (double g : gb.tensor.span<double>()) largest = std::max(largest, std::abs(g));
  for (std::int64_t i = 0; i < fast.layout().total(); ++i)
    ASSERT_NEAR(ga.tensor.as<float>()[i], gb.tensor.as<double>()[i], 1e-4 * largest) << "element " << i;
}

TEST_P(EveryMode, Bf16OperandsAreNearAndRefreshed) {
  Model m = model({.operands = kernels::DType::bf16});
  const Model exact = model();
  Pass a(m, kBatch, kLength, Pass::Kind::train), b(exact, kBatch, kLength, Pass::Kind::train);
  a.forward(ids);
  b.forward(ids);
  const auto rounded = nll(a), plain = nll(b);
  double difference = 0;
  for (std::size_t i = 0; i < plain.size(); ++i)
    difference = std::max(difference, std::abs(static_cast<double>(rounded[i] - plain[i])));
  EXPECT_GT(difference, 0.0);  // bf16 products were used
  EXPECT_LT(difference, 0.5);  // 8 layers' worth of 2^-9 relative roundings on logits of order 10
  kernels::OwnedTensor gradient(kernels::DType::f32, kernels::Device::cpu, {m.layout().total()}),
      reference(kernels::DType::f32, kernels::Device::cpu, {m.layout().total()});
  a.backward(targets, 1.0, gradient.tensor);
  b.backward(targets, 1.0, reference.tensor);
  double dot = 0, aa = 0, bb = 0;
  for (std::int64_t i = 0; i < m.layout().total(); ++i) {
    const double x = gradient.tensor.as<float>()[i], y = reference.tensor.as<float>()[i];
    dot += x * y, aa += x * x, bb += y * y;
  }
  EXPECT_GT(dot / std::sqrt(aa * bb),
            0.98);  // a relative error of 0.2: the head's and 8 sublayers' roundings, both ways
  // The operands are copies: they follow the parameters only when refreshed.
  fill(m.flat(), 0.0, kernels::Stream{});
  m.refresh_operands();
  a.forward(ids);
  for (float value : nll(a)) EXPECT_NEAR(value, std::log(static_cast<double>(config.vocab_size)), 1e-6);
}

/// nll and gradient of a training pass over `ids`.
std::pair<std::vector<float>, std::vector<double>> trained(const Model& m, const PassOptions& options,
                                                           const std::vector<std::int32_t>& ids,
                                                           const std::vector<std::int32_t>& targets) {
  Pass pass(m, kBatch, kLength, Pass::Kind::train, options);
  kernels::OwnedTensor gradient(m.options().storage, kernels::Device::cpu, {m.layout().total()});
  pass.forward(ids);
  std::vector<float> nll(ids.size());
  pass.nll(targets, nll);
  pass.backward(targets, 0.1, gradient.tensor);
  return {nll, kernels::host_values<double>(gradient.tensor, pass.stream())};
}

TEST_P(EveryMode, WhatIsComputedAgainHasTheSameBits) {
  const Model m = model();
  const auto kept = trained(m, {}, ids, targets);
  for (const Recompute level : {Recompute::swiglu, Recompute::norms, Recompute::attention}) {
    const auto again = trained(m, {.recompute = level}, ids, targets);
    EXPECT_EQ(kept.first, again.first) << static_cast<int>(level);
    EXPECT_EQ(kept.second, again.second) << static_cast<int>(level);
  }
}

TEST_P(EveryMode, RecomputationTakesLessMemory) {
  const auto bytes = [&](Recompute level) {
    std::size_t sum = 0;
    for (const kernels::Arena::Part& part :
         Pass::plan_memory(config, {}, kBatch, kLength, Pass::Kind::train, {.recompute = level}))
      sum += part.bytes;
    return sum;
  };
  EXPECT_GT(bytes(Recompute::none), bytes(Recompute::swiglu));
  EXPECT_GT(bytes(Recompute::swiglu), bytes(Recompute::norms));
  EXPECT_GT(bytes(Recompute::norms), bytes(Recompute::attention));
  const Model m = model();
  const Pass pass(m, kBatch, kLength, Pass::Kind::train, {.recompute = Recompute::norms});
  std::size_t taken = 0;
  for (const kernels::Arena::Part& part : pass.memory()) taken += part.bytes;
  EXPECT_EQ(taken, bytes(Recompute::norms));
}

TEST_P(RoutedMode, ReadsInTwoPhasesEqualFusedOnes) {
  const Model m = model({.storage = kernels::DType::f64, .operands = kernels::DType::f64});
  const auto fused = trained(m, {.reads = ReadPhases::fused}, ids, targets);
  bool prepared = false;
  for (int r = 0; r < m.plan().num_routed(); ++r)
    prepared = prepared || reads_to_prepare(m.plan(), r, {.reads = ReadPhases::two}, kernels::Device::cpu) > 0;
  for (const Recompute level : {Recompute::none, Recompute::attention}) {
    const auto two = trained(m, {.reads = ReadPhases::two, .recompute = level}, ids, targets);
    // Other roundings: the other operations did run, wherever a read does not have its own partial among its sources.
    EXPECT_EQ(fused.second != two.second, prepared);
    double largest = 0, difference = 0;
    for (std::size_t i = 0; i < two.second.size(); ++i) {
      largest = std::max(largest, std::abs(fused.second[i]));
      difference = std::max(difference, std::abs(fused.second[i] - two.second[i]));
    }
    EXPECT_LT(difference, 1e-12 * largest);
  }
}

TEST_P(RoutedMode, TakenUpPassInTwoPhasesEqualsWholePass) {
  const Model m = model({.storage = kernels::DType::f64, .operands = kernels::DType::f64});
  const PassOptions two{.reads = ReadPhases::two};
  Pass shared(m, kBatch, kLength, Pass::Kind::infer, two), whole(m, kBatch, kLength, Pass::Kind::infer);
  shared.forward(ids);
  for (int r = m.plan().num_routed() - 1; r > 0; --r) {
    RoutingIntervention mask;
    mask.logit_bias.assign(m.plan().reads.size(),
                           std::vector<double>(static_cast<std::size_t>(m.plan().num_columns()), 0.0));
    mask.logit_bias[static_cast<std::size_t>(r)][0] = -1.5;
    shared.forward(ids, &mask, r);
    whole.forward(ids, &mask);
    const auto a = nll(shared), b = nll(whole);
    for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-6) << "read " << r;
  }
}

TEST_P(RoutedMode, TakenUpPassEqualsWholePass) {
  const Model m = model();
  Pass shared(m, kBatch, kLength, Pass::Kind::infer), whole(m, kBatch, kLength, Pass::Kind::infer);
  shared.forward(ids);
  const auto intact = nll(shared);
  for (int r = m.plan().num_routed() - 1; r > 0; --r) {
    RoutingIntervention mask;
    mask.logit_bias.assign(static_cast<std::size_t>(m.plan().num_routed()),
                           std::vector<double>(static_cast<std::size_t>(m.plan().num_columns()), 0.0));
    mask.logit_bias[static_cast<std::size_t>(r)][0] = -INFINITY;
    shared.forward(ids, &mask, r);
    whole.forward(ids, &mask);
    const auto a = nll(shared), b = nll(whole);
    EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0) << "from read " << r;
    EXPECT_NE(std::memcmp(a.data(), intact.data(), a.size() * sizeof(float)), 0)
        << "the mask did nothing at read " << r;
    const kernels::Tensor alpha = whole.alpha(r);
    for (std::int64_t t = 0; t < alpha.shape[0]; ++t) EXPECT_EQ(alpha.as<float>()[t * alpha.shape[1]], 0.0f);
  }
}

TEST_P(RoutedMode, OverridingAlphaWithItselfChangesNothing) {
  const Model m = model();
  Pass pass(m, kBatch, kLength, Pass::Kind::infer);
  pass.forward(ids);
  const auto intact = nll(pass);
  RoutingIntervention same;
  std::vector<kernels::OwnedTensor> copies;
  for (int r = 0; r < m.plan().num_routed(); ++r) {
    const kernels::Tensor alpha = pass.alpha(r);
    copies.emplace_back(kernels::DType::f32, kernels::Device::cpu,
                        std::initializer_list<std::int64_t>{alpha.shape[0], alpha.shape[1]});
    std::memcpy(copies.back().tensor.data, alpha.data, alpha.bytes());
    same.alpha_override[r] = copies.back().tensor;
  }
  pass.forward(ids, &same);
  const auto again = nll(pass);
  EXPECT_EQ(std::memcmp(again.data(), intact.data(), again.size() * sizeof(float)), 0);
}

TEST_P(EveryMode, SameBitsForEveryThreadCount) {
  const int before = omp_get_max_threads();
  std::vector<float> first;
  for (int threads : {1, 2, 3, 4, 2}) {
    omp_set_num_threads(threads);
    const Model m = model();
    Pass pass(m, kBatch, kLength, Pass::Kind::train);
    pass.forward(ids);
    kernels::OwnedTensor gradient(kernels::DType::f32, kernels::Device::cpu, {m.layout().total()});
    pass.backward(targets, 0.3, gradient.tensor);
    const std::vector<float> now(gradient.tensor.as<float>(), gradient.tensor.as<float>() + gradient.tensor.numel());
    if (first.empty()) first = now;
    EXPECT_EQ(std::memcmp(first.data(), now.data(), now.size() * sizeof(float)), 0) << threads << " threads";
  }
  omp_set_num_threads(before);
}

TEST_P(EveryMode, SequencesDoNotSeeEachOther) {
  const Model m = model();
  Pass together(m, kBatch, kLength, Pass::Kind::infer), alone(m, 1, kLength, Pass::Kind::infer);
  together.forward(ids);
  const auto all = nll(together);
  for (std::size_t b = 0; b < kBatch; ++b) {
    const auto at = static_cast<std::ptrdiff_t>(b * kLength);
    const std::vector<std::int32_t> one(ids.begin() + at, ids.begin() + at + kLength),
        target(targets.begin() + at, targets.begin() + at + kLength);
    std::vector<float> out(kLength);
    alone.forward(one);
    alone.nll(target, out);
    for (std::size_t t = 0; t < kLength; ++t) EXPECT_NEAR(out[t], all[b * kLength + t], 2e-5);
  }
}

INSTANTIATE_TEST_SUITE_P(Modes, EveryMode, ::testing::ValuesIn(micro::modes()),
                         [](const auto& p) { return p.param.name; });

INSTANTIATE_TEST_SUITE_P(Modes, RoutedMode, ::testing::ValuesIn(micro::modes().begin() + 1, micro::modes().end()),
                         [](const auto& p) { return p.param.name; });

TEST(Pass, RefusesIdsOutsideTheVocabulary) {
  Model m(micro::config(micro::modes()[1]), {});
  m.initialize(1);
  Pass pass(m, 1, 4, Pass::Kind::infer);
  const std::vector<std::int32_t> bad{0, 1, 13, 2};
  try {
    pass.forward(bad);
    FAIL() << "accepted";
  } catch (const data::Error& error) {
    EXPECT_STREQ(error.what(), "token 2: found id 13, expected 0 to 12 (the vocabulary)");
  }
}

TEST(Pass, LeavesNothingToTakeUpWhereItEndedInAnError) {
  const ModelConfig config = micro::config(micro::modes()[1]);
  Model m(config, {});
  micro::randomize(m, 5);
  Pass pass(m, 1, 4, Pass::Kind::infer);
  const std::vector<std::int32_t> ids{0, 1, 2, 3};
  std::vector<float> intact(4), again(4);
  pass.forward(ids);
  pass.nll(ids, intact);
  RoutingIntervention broken;
  broken.edits[2].alpha = [](std::span<const double>, std::span<double>) { throw std::runtime_error("broken"); };
  EXPECT_THROW(pass.forward(ids, &broken, 2), std::runtime_error);
  EXPECT_THROW(pass.forward(ids, nullptr, 3), std::invalid_argument);
  EXPECT_THROW(pass.nll(ids, again), std::invalid_argument);
  pass.forward(ids);
  pass.nll(ids, again);
  EXPECT_EQ(again, intact);
}

TEST(Pass, RefusesAMaskThatLeavesNothing) {
  Model m(micro::config(micro::modes()[1]), {});
  m.initialize(1);
  Pass pass(m, 1, 4, Pass::Kind::infer);
  RoutingIntervention nothing;
  nothing.logit_bias.assign(9, std::vector<double>(3, -INFINITY));
  const std::vector<std::int32_t> ids{0, 1, 2, 3};
  EXPECT_THROW(pass.forward(ids, &nothing), std::invalid_argument);
}

TEST(Pass, UniformRoutingAtTheStart) {
  ModelConfig config = micro::config(micro::modes()[1]);
  config.recency_bias = 0;
  Model m(config, {});
  m.initialize(1);
  Pass pass(m, 1, 4, Pass::Kind::infer);
  const std::vector<std::int32_t> ids{0, 1, 2, 3};
  pass.forward(ids);
  for (int r = 0; r < m.plan().num_routed(); ++r) {
    const kernels::Tensor alpha = pass.alpha(r);
    for (float a : alpha.span<float>()) EXPECT_NEAR(a, 1.0 / static_cast<double>(alpha.shape[1]), 1e-7);
  }
}

}  // namespace
}  // namespace routescope::model
