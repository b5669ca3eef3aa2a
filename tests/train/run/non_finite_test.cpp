// Steps whose loss or gradient is not finite: they are skipped, then the run goes back, then it ends. The failures are
// planted in the sums over ranks. Weights that are not finite come to no checkpoint.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <functional>
#include <memory>
#include <set>

#include "data/records/routing_view.h"
#include "kernels/comm/communicator.h"
#include "kernels/ops.h"
#include "tests/train/run/micro_run.h"
#include "train/checkpoint/state_file.h"

namespace routescope::train {
namespace {

namespace fs = std::filesystem;
using testing::expect_same_run;
using testing::MicroRun;

/// A process alone. The loss of the steps that train on some of the batches comes back as NaN.
class FailingCommunicator final : public kernels::Communicator {
 public:
  /// `next`: the batch of the first step.
  FailingCommunicator(std::set<std::int64_t> failing, std::int64_t next)
      : Communicator({}), failing_(std::move(failing)), next_(next) {}

  Ticket reduce_scatter(kernels::Tensor piece, kernels::Tensor whole, const kernels::Stream& stream,
                        const std::string& what) override {
    return alone_->reduce_scatter(piece, whole, stream, what);
  }
  Ticket all_gather(kernels::Tensor whole, kernels::Tensor piece, const kernels::Stream& stream,
                    const std::string& what) override {
    return alone_->all_gather(whole, piece, stream, what);
  }
  void wait(Ticket ticket, const kernels::Stream& stream) override { alone_->wait(ticket, stream); }
  void all_reduce(std::span<double> values, kernels::Reduction reduction, const std::string& what) override {
    alone_->all_reduce(values, reduction, what);
    // Batches are tried in order, and none twice: the sums of a step are those of the next batch.
    if (what == "loss and gradient norm" && failing_.contains(next_++)) values[0] = std::nan("");
  }
  std::vector<std::string> gather(const std::string& bytes, const std::string& what) override {
    return alone_->gather(bytes, what);
  }
  std::string broadcast(const std::string& bytes, const std::string& what) override {
    return alone_->broadcast(bytes, what);
  }
  Traffic traffic() const override { return alone_->traffic(); }

 private:
  std::unique_ptr<kernels::Communicator> alone_ = kernels::single_communicator();
  std::set<std::int64_t> failing_;
  std::int64_t next_;
};

class NonFinite : public ::testing::Test {
 protected:
  /// From now on, train() starts runs with these settings whose batches `failing` fail.
  void prepare(std::vector<std::int64_t> failing, std::vector<std::string> settings = {}) {
    failing_ = std::move(failing);
    settings_ = std::move(settings);
  }
  LoopResult train(const std::string& run, std::function<int(std::int64_t)> stop = nullptr) {
    LoopOptions options{.stop = stop ? std::move(stop) : [](std::int64_t) { return 0; }, .matrix_rate_seconds = 0};
    const std::vector<data::CheckpointEntry> there = data::list_checkpoints(micro_.dir(run));
    const std::int64_t next = there.empty() ? 0 : read_train_state(there.back()).next_batch;
    FailingCommunicator communicator({failing_.begin(), failing_.end()}, next);
    return run_training(micro_.config(run, settings_), communicator, options);
  }
  data::RoutingRecordView record(const std::string& run) const {
    return data::RoutingRecordView::load(micro_.dir(run) / "routing.h5");
  }
  /// Steps of the record whose loss is not finite.
  std::vector<std::int64_t> failed_steps(const std::string& run) const {
    std::vector<std::int64_t> steps;
    for (const data::TrainRow& row : record(run).train) {
      if (!std::isfinite(row.loss)) steps.push_back(row.step);
    }
    return steps;
  }
  TrainState last_state(const std::string& run) const {
    return read_train_state(data::list_checkpoints(micro_.dir(run)).back());
  }
  std::vector<float> weights(const std::string& run, std::int64_t step) const {
    const model::Model model = model::Model::load(data::checkpoint_dir(micro_.dir(run), step), {});
    const auto values = model.flat().span<float>();
    return {values.begin(), values.end()};
  }
  static bool same(const std::vector<float>& a, const std::vector<float>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [](float x, float y) { return x == y || (std::isnan(x) && std::isnan(y)); });
  }

  MicroRun micro_;
  std::vector<std::int64_t> failing_;
  std::vector<std::string> settings_;
};

TEST_F(NonFinite, AStepIsSkippedAndTheRunContinues) {
  prepare({4}, {"checkpoint.every=1"});  // update 5
  EXPECT_EQ(train("once").step, 12);
  EXPECT_EQ(failed_steps("once"), (std::vector<std::int64_t>{5}));
  EXPECT_EQ(last_state("once").next_batch, 12);
  // No checkpoint between skipped steps.
  EXPECT_FALSE(fs::exists(data::checkpoint_dir(micro_.dir("once"), 5)));
  EXPECT_FALSE(same(weights("once", 4), weights("once", 6)));
}

TEST_F(NonFinite, ASkippedStepChangesNoWeight) {
  prepare({4, 5});
  train("still", [](std::int64_t at) { return at == 6 ? SIGTERM : 0; });
  EXPECT_TRUE(same(weights("still", 6), weights("still", 4)));
  EXPECT_EQ(last_state("still").skipped, 2);
}

TEST_F(NonFinite, ResumedBetweenSkippedStepsItIsTheSameRun) {
  const std::vector<std::int64_t> failing{4, 5, 6};
  prepare(failing);
  train("whole");
  prepare(failing);
  for (const std::int64_t stop : {5, 6}) {
    EXPECT_EQ(train("cut", [stop](std::int64_t at) { return at == stop ? SIGTERM : 0; }).step, stop);
  }
  EXPECT_EQ(train("cut").step, 12);
  EXPECT_EQ(last_state("cut").next_batch, last_state("whole").next_batch);
  EXPECT_GT(last_state("whole").next_batch, 12);
}

TEST_F(NonFinite, AfterManyInARowTheRunGoesBackAndContinuesBehindThem) {
  prepare({4, 5, 6}, {"train.non_finite.skip=1"});
  EXPECT_EQ(train("back").step, 12);
  // Updates 5 and 6 fail, and one failure is allowed: the run goes back to step 4 and continues with batch 6. That
  // fails as update 5. No later one fails.
  EXPECT_EQ(failed_steps("back"), (std::vector<std::int64_t>{5}));
  EXPECT_EQ(last_state("back").next_batch, 14);
  EXPECT_EQ(record("back").train.size(), 12u);
  EXPECT_EQ(last_state("back").tokens_seen, 12 * 64);
}

TEST_F(NonFinite, KilledAfterGoingBackItIsTheSameRun) {
  prepare({4, 5, 6}, {"train.non_finite.skip=1"});
  train("whole");
  prepare({4, 5, 6}, {"train.non_finite.skip=1"});
  struct Crash {};
  int seen = 0;
  EXPECT_THROW(train("killed", [&](std::int64_t at) { return at == 5 && ++seen == 2 ? throw Crash() : 0; }), Crash);
  train("killed");
  EXPECT_EQ(last_state("killed").next_batch, last_state("whole").next_batch);
  EXPECT_TRUE(same(weights("killed", 12), weights("whole", 12)));
}

// A run that goes back must not use a checkpoint that a stop wrote between the failing steps.
TEST_F(NonFinite, StoppedBetweenThemAndAgainAfterGoingBack) {
  prepare({4, 5, 6});
  train("whole");
  prepare({4, 5, 6}, {"checkpoint.keep=1"});
  for (const std::int64_t stop : {6, 5}) {
    EXPECT_EQ(train("twice", [stop](std::int64_t at) { return at == stop ? SIGTERM : 0; }).step, stop);
  }
  EXPECT_EQ(data::list_checkpoints(micro_.dir("twice")).back().step, 5);
  EXPECT_EQ(train("twice").step, 12);
  EXPECT_TRUE(same(weights("twice", 12), weights("whole", 12)));
}

TEST_F(NonFinite, GoingBackTooOftenEndsTheRun) {
  std::vector<std::int64_t> failing(20);
  for (std::size_t i = 0; i < failing.size(); ++i) failing[i] = static_cast<std::int64_t>(i) + 4;
  prepare(failing, {"train.non_finite.skip=1", "train.non_finite.roll_back=3"});
  try {
    train("vain");
    FAIL() << "it goes on";
  } catch (const std::exception& error) {
    EXPECT_NE(std::string(error.what()).find("after going back 3 times to step 4"), std::string::npos) << error.what();
  }
  EXPECT_EQ(data::list_checkpoints(micro_.dir("vain")).back().step, 4);
}

TEST_F(NonFinite, WithSkipAndRollBackOfZeroTheFirstOneEndsTheRun) {
  prepare({4}, {"train.non_finite.skip=0", "train.non_finite.roll_back=0"});
  EXPECT_THROW(train("strict"), std::exception);
  EXPECT_EQ(data::list_checkpoints(micro_.dir("strict")).back().step, 4);
}

/// Sets one number of the weights in a checkpoint, and makes its manifest anew.
void plant(const fs::path& checkpoint, const char* parameter, double value) {
  const model::Model model = model::Model::load(checkpoint, {});
  kernels::fill(model.parameter(parameter).slice(5, {1}), value, kernels::Stream{});
  model.save(checkpoint);
  data::write_manifest(checkpoint);
}

// An eps of 0 divides 0 by 0 in the first update: loss and gradient of step 1 are finite, its weights are not.
TEST_F(NonFinite, WeightsThatAreNotFiniteAreNoCheckpoint) {
  for (const char* keep : {"checkpoint.keep=1", "checkpoint.keep=all"}) {
    for (const char* every : {"checkpoint.every=1", "checkpoint.every=0"}) {
      const std::string run = std::string(keep) + every;
      prepare({}, {keep, every, "checkpoint.log_spaced_until=0", "train.grad_clip=0"});
      TrainConfig config = micro_.config(run, settings_);
      config.train.optimizer.eps = 0;  // the key refuses it
      try {
        run_training(config, {.matrix_rate_seconds = 0});
        FAIL() << run << ": it goes on";
      } catch (const std::exception& error) {
        EXPECT_NE(std::string(error.what()).find("expected finite numbers"), std::string::npos) << error.what();
        EXPECT_NE(std::string(error.what()).find("after going back 2 times to step 0"), std::string::npos)
            << error.what();
      }
      EXPECT_EQ(testing::checkpoint_names(micro_.dir(run)), std::vector<std::string>{"step-00000000"}) << run;
      for (const float weight : weights(run, 0)) ASSERT_TRUE(std::isfinite(weight));
    }
  }
}

// Such checkpoints may be there from earlier versions.
TEST_F(NonFinite, ACheckpointThatIsNotFiniteIsNotResumedFromAndDoesNotCount) {
  prepare({}, {"checkpoint.every=1", "checkpoint.keep=1"});
  train("whole");
  settings_ = {"checkpoint.every=1", "checkpoint.keep=all"};
  train("old", [](std::int64_t at) { return at == 6 ? SIGTERM : 0; });
  for (const std::int64_t step : {5, 6})
    plant(data::checkpoint_dir(micro_.dir("old"), step), "model.norm.weight", step == 5 ? INFINITY : std::nan(""));
  settings_ = {"checkpoint.every=1", "checkpoint.keep=1"};
  EXPECT_EQ(train("old").step, 12);
  EXPECT_TRUE(same(weights("old", 12), weights("whole", 12)));
}

}  // namespace
}  // namespace routescope::train
