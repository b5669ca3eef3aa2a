// The learning rate and the steps at which something is written, against values worked out by hand.
#include "train/config/schedule.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

namespace routescope::train {
namespace {

TrainConfig::Train settings(const std::string& kind, std::int64_t steps, std::int64_t warmup) {
  TrainConfig::Train train;
  train.steps = steps;
  train.optimizer.learning_rate = 2.0;
  train.schedule = {.kind = kind, .warmup_steps = warmup, .final_fraction = 0.1, .decay_fraction = 0.25};
  return train;
}

// A few operations on numbers of order one.
constexpr double kRounding = 8 * std::numeric_limits<double>::epsilon();

TEST(LearningRate, WarmsUpLinearlyToThePeak) {
  for (const char* kind : {"cosine", "wsd", "constant"}) {
    const auto train = settings(kind, 100, 4);
    EXPECT_NEAR(learning_rate(train, 1), 0.5, kRounding) << kind;
    EXPECT_NEAR(learning_rate(train, 3), 1.5, kRounding) << kind;
    EXPECT_NEAR(learning_rate(train, 4), 2.0, kRounding) << kind;
    EXPECT_LE(learning_rate(train, 5), 2.0) << kind;
  }
}

TEST(LearningRate, CosineEndsAtItsFinalFraction) {
  const auto train = settings("cosine", 104, 4);
  EXPECT_NEAR(learning_rate(train, 54), 2.0 * (0.1 + 0.9 / 2), kRounding);  // halfway: cos(pi / 2) = 0
  EXPECT_NEAR(learning_rate(train, 104), 0.2, kRounding);
  for (std::int64_t step = 5; step <= 104; ++step)
    EXPECT_LT(learning_rate(train, step), learning_rate(train, step - 1));
}

TEST(LearningRate, StableThenLinearDecay) {
  const auto train = settings("wsd", 100, 4);
  for (std::int64_t step = 4; step <= 75; ++step) EXPECT_EQ(learning_rate(train, step), 2.0) << step;
  EXPECT_NEAR(learning_rate(train, 76), 2.0 * (1 - 0.9 / 25), kRounding);
  EXPECT_NEAR(learning_rate(train, 100), 0.2, kRounding);
}

TEST(LearningRate, ConstantStaysAndNoWarmUpStartsAtThePeak) {
  const auto train = settings("constant", 100, 0);
  EXPECT_EQ(learning_rate(train, 1), 2.0);
  EXPECT_EQ(learning_rate(train, 100), 2.0);
  EXPECT_NEAR(learning_rate(settings("wsd", 100, 0), 1), 2.0, kRounding);
}

std::vector<std::int64_t> steps_of(const StepSchedule& schedule) {
  std::vector<std::int64_t> steps;
  for (std::int64_t step = -1; step <= schedule.last + 10; ++step)
    if (schedule.contains(step)) steps.push_back(step);
  return steps;
}

TEST(StepSchedule, LogSpacedThenEven) {
  EXPECT_EQ(steps_of({.every = 10, .log_spaced_until = 16, .last = 47}),
            (std::vector<std::int64_t>{0, 1, 2, 4, 8, 16, 20, 30, 40, 47}));
  EXPECT_EQ(steps_of({.every = 10, .log_spaced_until = 21, .last = 40}),
            (std::vector<std::int64_t>{0, 1, 2, 4, 8, 16, 30, 40}));
}

TEST(StepSchedule, FirstAndLastAlways) {
  EXPECT_EQ(steps_of({.every = 0, .log_spaced_until = 0, .last = 7}), (std::vector<std::int64_t>{0, 7}));
  EXPECT_EQ(steps_of({.every = 3, .log_spaced_until = 0, .last = 7}), (std::vector<std::int64_t>{0, 3, 6, 7}));
  EXPECT_EQ(steps_of({.every = 0, .log_spaced_until = 1, .last = 1}), (std::vector<std::int64_t>{0, 1}));
}

}  // namespace
}  // namespace routescope::train
