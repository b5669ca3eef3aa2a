// AdamW as a step uses it on one rank: which parameters decay, what is scaled, that padding stays zero, what it is said
// to take.
#include "train/optimizer/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "kernels/ops.h"
#include "tests/train/run/micro_run.h"

namespace routescope::train {
namespace {

// A handful of f32 operations on each number.
constexpr double kRounding = 16 * static_cast<double>(std::numeric_limits<float>::epsilon());

class OptimizerTest : public ::testing::Test {
 protected:
  OptimizerTest()
      : config_(micro_.config("unused")),
        model_(config_.model, config_.model_options()),
        gradients_(kernels::DType::f32, kernels::Device::cpu, {model_.layout().total()}) {
    model_.initialize(5);
    for (const model::ParameterInfo& info : model_.layout().all()) {
      kernels::random_normal(gradients_.tensor.rows(info.offset, info.offset + info.size), 0.3, 9,
                             static_cast<std::uint64_t>(info.offset), stream_);
    }
    const std::size_t bytes = kernels::workspace_bytes({.tokens = 1, .hidden_size = 32}, kernels::Device::cpu);
    workspace_ = kernels::Buffer(bytes, kernels::Device::cpu);
    stream_.workspace = static_cast<std::byte*>(workspace_.data());
    stream_.workspace_size = bytes;
  }

  testing::MicroRun micro_;
  TrainConfig config_;
  model::Model model_;
  std::unique_ptr<kernels::Communicator> communicator_ = kernels::single_communicator();
  kernels::OwnedTensor gradients_;
  kernels::Stream stream_;
  kernels::Buffer workspace_;
};

TEST_F(OptimizerTest, TwoUpdatesAreAdamW) {
  const OptimizerSettings settings{.learning_rate = 0, .beta1 = 0.8, .beta2 = 0.9, .eps = 1e-3, .weight_decay = 0.25};
  constexpr double kRate = 0.05, kScale = 0.03;
  const std::vector<float> before(model_.flat().as<float>(), model_.flat().as<float>() + model_.flat().numel());
  Optimizer optimizer(model_, settings, *communicator_, {});

  double sum = 0;
  for (const float g : gradients_.tensor.span<float>()) sum += static_cast<double>(g) * static_cast<double>(g);
  EXPECT_NEAR(optimizer.parameters().squares(gradients_.tensor, stream_), sum, 1e-13 * sum);
  for (std::int64_t step = 1; step <= 2; ++step) optimizer.update(gradients_.tensor, kScale, kRate, step, stream_);

  std::size_t decayed = 0;
  for (const model::ParameterInfo& info : model_.layout().all()) {
    EXPECT_EQ(info.decay, info.shape.size() == 2 && info.shape[0] > 1) << info.name;
    for (std::int64_t i = info.offset; i < info.offset + info.size; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const double g = kScale * static_cast<double>(gradients_.tensor.as<float>()[i]);
      double p = static_cast<double>(before[at]), m = 0, v = 0;
      for (int step = 1; step <= 2; ++step) {
        m = 0.8 * m + 0.2 * g;
        v = 0.9 * v + 0.1 * g * g;
        p -= kRate * (m / (1 - std::pow(0.8, step)) / (std::sqrt(v / (1 - std::pow(0.9, step))) + 1e-3) +
                      (info.decay ? 0.25 : 0.0) * p);
      }
      ASSERT_NEAR(model_.flat().as<float>()[i], p, kRounding * (std::abs(p) + kRate)) << info.name;
      ASSERT_NEAR(optimizer.state().ranges[0].state[0].as<float>()[i], m, kRounding * std::abs(m) + 1e-6 * std::abs(g))
          << info.name;
    }
    if (info.decay) ++decayed;
  }
  EXPECT_EQ(decayed, 1u + 4 * 7);  // the embedding, and q k v o gate up down of each layer
}

TEST_F(OptimizerTest, FiniteLooksAtEveryWeightAndTheState) {
  const OptimizerSettings settings{.learning_rate = 0};
  Optimizer optimizer(model_, settings, *communicator_, {});
  EXPECT_TRUE(optimizer.finite(stream_));
  for (const double bad : {static_cast<double>(INFINITY), std::nan("")}) {
    for (const model::ParameterInfo& info : model_.layout().all()) {
      float& last = model_.flat().as<float>()[info.offset + info.size - 1];
      const float before = std::exchange(last, static_cast<float>(bad));
      EXPECT_FALSE(optimizer.finite(stream_)) << info.name;
      last = before;
    }
  }
  EXPECT_TRUE(optimizer.finite(stream_));
  // The largest numbers are finite.
  model_.flat().as<float>()[0] = std::numeric_limits<float>::max();
  EXPECT_TRUE(optimizer.finite(stream_));
  // The square of this gradient overflows in the state. No weight shows it: the update becomes 0.
  kernels::fill(gradients_.tensor, 0.0, stream_);
  gradients_.tensor.as<float>()[3] = 1e25F;
  optimizer.update(gradients_.tensor, 1.0, 1e-3, 1, stream_);
  for (const float weight : model_.flat().span<float>()) ASSERT_TRUE(std::isfinite(weight));
  EXPECT_FALSE(optimizer.finite(stream_));
}

TEST_F(OptimizerTest, PaddingStaysZero) {
  Optimizer optimizer(model_, {}, *communicator_, {});
  optimizer.update(gradients_.tensor, 1.0, 0.1, 1, stream_);
  std::vector<bool> parameter(static_cast<std::size_t>(model_.layout().total()), false);
  for (const model::ParameterInfo& info : model_.layout().all()) {
    std::fill_n(parameter.begin() + info.offset, info.size, true);
  }
  for (std::size_t i = 0; i < parameter.size(); ++i) {
    EXPECT_TRUE(parameter[i] || model_.flat().as<float>()[i] == 0.0F) << i;
  }
}

TEST_F(OptimizerTest, AScaleOfOneChangesNoBit) {
  Optimizer optimizer(model_, {.beta1 = 0.0}, *communicator_, {});
  optimizer.update(gradients_.tensor, 1.0, 0.1, 1, stream_);
  const model::ParameterInfo& info = model_.layout().at("model.embed_tokens.weight");
  for (std::int64_t i = info.offset; i < info.offset + info.size; ++i) {
    ASSERT_EQ(optimizer.state().ranges[0].state[0].as<float>()[i], gradients_.tensor.as<float>()[i]);
  }
}

}  // namespace
}  // namespace routescope::train
