// The result of a step does not depend on the micro-batch, beyond summation order, nor on the number of threads.
#include "train/run/step.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cmath>
#include <limits>

#include "data/base/manifest.h"
#include "data/records/routing_view.h"
#include "data/tokens/shard.h"
#include "kernels/ops.h"
#include "model/pass/pass.h"
#include "tests/train/run/micro_run.h"
#include "train/plan/throughput.h"
#include "train/run/evaluate.h"

namespace routescope::train {
namespace {

using testing::MicroRun;

/// Relative error of an f32 sum over `terms` numbers, each the end of a chain of products of `length` terms.
double summation_error(double terms, double length) {
  return (terms + length) * static_cast<double>(std::numeric_limits<float>::epsilon());
}

class Step : public ::testing::Test {
 protected:
  MicroRun micro_;
};

// The gradient is one sum over the step's tokens, whatever the micro-batch. The longest chain of a token goes through
// every layer's projections, forward and backward.
TEST_F(Step, GradientsAddUpOverMicroBatches) {
  const TrainConfig config = micro_.config("unused");
  model::Model model(config.model, config.model_options());
  model.initialize(3);
  const data::TokenStream stream(config.data.train, config.model.vocab_size);
  const data::Batches batches(stream, 16, 4, 5);
  const double tolerance = summation_error(4 * 16, 2.0 * 4 * (3 * 32 + 64));

  std::vector<kernels::OwnedTensor> gradients;
  std::vector<double> losses;
  for (const std::int64_t micro_batch : {4, 2, 1}) {
    model::Pass pass(model, micro_batch, 16, model::Pass::Kind::train);
    gradients.emplace_back(kernels::DType::f32, kernels::Device::cpu,
                           std::initializer_list<std::int64_t>{model.layout().total()});
    double nll = 0;
    for (std::int64_t begin = 0; begin < 4; begin += micro_batch) {
      const data::Batch batch = batches.get(0, begin, begin + micro_batch);
      pass.forward(batch.inputs);
      pass.backward(batch.targets, 1.0 / 64, gradients.back().tensor);
      nll += pass.take_loss();
    }
    losses.push_back(nll / 64);
  }
  for (std::size_t i = 1; i < gradients.size(); ++i) {
    EXPECT_NEAR(losses[i], losses[0], tolerance * losses[0]);
    double largest = 0, difference = 0;
    for (std::int64_t j = 0; j < model.layout().total(); ++j) {
      const double a = static_cast<double>(gradients[0].tensor.as<float>()[j]);
      const double b = static_cast<double>(gradients[i].tensor.as<float>()[j]);
      largest = std::max(largest, std::abs(a));
      difference = std::max(difference, std::abs(a - b));
    }
    EXPECT_GT(largest, 0);
    EXPECT_LE(difference, tolerance * largest);
  }
}

// With a large eps AdamW's update is proportional to the gradient. Then no division by a small number magnifies
// rounding, and losses of whole runs can be compared: each step adds at most one gradient's error.
TEST_F(Step, RunsWithOtherMicroBatchesHaveTheSameLosses) {
  const std::vector<std::string> settings{"train.steps=6", "train.optimizer.eps=1", "train.grad_clip=0",
                                          "train.optimizer.learning_rate=0.5"};
  std::vector<data::RoutingRecordView> records;
  for (const char* micro_batch : {"1", "2", "4"}) {
    std::vector<std::string> overrides = settings;
    overrides.push_back(std::string("train.micro_batch=") + micro_batch);
    micro_.train(micro_batch, overrides);
    records.push_back(data::RoutingRecordView::load(micro_.dir(micro_batch) / "routing.h5"));
  }
  EXPECT_NE(records[0].train.front().loss, records[0].train.back().loss);
  for (const data::RoutingRecordView& record : records) {
    ASSERT_EQ(record.train.size(), 6u);
    for (std::size_t i = 0; i < 6; ++i) {
      const double expected = records[0].train[i].loss;
      const double tolerance = static_cast<double>(i + 1) * summation_error(4 * 16, 2.0 * 4 * (3 * 32 + 64)) * expected;
      EXPECT_NEAR(record.train[i].loss, expected, tolerance) << "step " << i + 1;
      const double norm = records[0].train[i].grad_norm;
      EXPECT_NEAR(record.train[i].grad_norm, norm, tolerance / expected * norm) << "step " << i + 1;
    }
    for (std::size_t i = 0; i < record.valid.size(); ++i) {
      EXPECT_NEAR(record.valid[i].loss, records[0].valid[i].loss,
                  6 * summation_error(80, 2.0 * 4 * (3 * 32 + 64)) * record.valid[i].loss);
    }
  }
}

// With a large eps an update is proportional to the gradient as it is after clipping.
TEST_F(Step, ClippingScalesLargeGradientsDownAndNoneUp) {
  const auto update = [&](const std::string& clip) {
    std::vector<double> out;
    micro_.train(clip, {"train.steps=1", "train.optimizer.eps=100", "train.optimizer.weight_decay=0",
                        "train.optimizer.learning_rate=1", "train.schedule.warmup_steps=0", "train.grad_clip=" + clip});
    const auto weights = [&](std::int64_t step) {
      return model::Model::load(data::checkpoint_dir(micro_.dir(clip), step), {});
    };
    const model::Model before = weights(0), after = weights(1);
    for (std::int64_t i = 0; i < before.layout().total(); ++i)
      out.push_back(static_cast<double>(after.flat().as<float>()[i]) -
                    static_cast<double>(before.flat().as<float>()[i]));
    return out;
  };
  const auto norm_of = [](const std::vector<double>& values) {
    double squares = 0;
    for (const double value : values) squares += value * value;
    return std::sqrt(squares);
  };
  const std::vector<double> unclipped = update("0");
  const double norm = data::RoutingRecordView::load(micro_.dir("0") / "routing.h5").train.front().grad_norm;
  EXPECT_EQ(update(std::to_string(2 * norm)), unclipped);
  EXPECT_NEAR(norm_of(update(std::to_string(norm / 4))), norm_of(unclipped) / 4, 0.05 * norm_of(unclipped) / 4);
}

TEST_F(Step, ThreadsDoNotChangeABit) {
  for (const char* threads : {"1", "2", "3"}) {
    const auto finished = micro_.execute(threads, {}, [threads] { ::setenv("OMP_NUM_THREADS", threads, 1); });
    ASSERT_EQ(finished.status, 0) << finished.err;
  }
  testing::expect_same_run(micro_.dir("2"), micro_.dir("1"));
  testing::expect_same_run(micro_.dir("3"), micro_.dir("1"));
}

// 5 windows in batches of 2: the last batch is filled up, and the filling must not count.
TEST_F(Step, ValidationDoesNotCountTheFillingOfABatch) {
  const TrainConfig config = micro_.config("unused");
  model::Model model(config.model, config.model_options());
  model.initialize(3);
  const data::TokenStream stream(config.data.valid, config.model.vocab_size);
  const data::Batches batches(stream, 16, 1, 5);
  model::Pass by_two(model, 2, 16, model::Pass::Kind::train), by_five(model, 5, 16, model::Pass::Kind::train);
  const auto alone = kernels::single_communicator();
  const double expected = mean_nll(by_five, batches, 5, *alone);
  EXPECT_NEAR(mean_nll(by_two, batches, 5, *alone), expected, summation_error(80, 2.0 * 4 * (3 * 32 + 64)) * expected);
  EXPECT_GT(std::abs(mean_nll(by_two, batches, 6, *alone) - expected), 1e-4 * expected);
}

// Qwen3-0.6B: 440.5 M parameters in 28 layers of d 1024 (q 2048, k and v 1024 each, o 2048, f 3072), and a head of
// 155.6 M.
TEST(Throughput, FlopsOfQwen3) {
  const model::ModelConfig config = model::ModelConfig::preset("qwen3_0.6b");
  const std::int64_t layer = 1024 * (2048 + 2 * 1024 + 2048 + 3 * 3072);
  EXPECT_EQ(matmul_parameters(config), 28 * layer + 151936 * 1024);
  EXPECT_DOUBLE_EQ(flops_per_token(config, 2048),
                   6.0 * static_cast<double>(28 * layer + 151936 * 1024) + 6.0 * 28 * 2048 * 2049);
}

}  // namespace
}  // namespace routescope::train
