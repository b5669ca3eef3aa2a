// Steps whose loss or gradient is not finite: they are skipped, then the run goes back, then it ends. The cause is
// planted: the embedding of one token is NaN, and only the batches that must fail contain this token.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <limits>

#include "data/records/routing_view.h"
#include "data/tokens/batches.h"
#include "data/tokens/shard.h"
#include "data/tokens/shard_writer.h"
#include "kernels/ops.h"
#include "tests/train/run/micro_run.h"
#include "train/checkpoint/state_file.h"

namespace routescope::train {
namespace {

namespace fs = std::filesystem;
using testing::expect_same_run;
using testing::MicroRun;

constexpr std::int64_t kLength = 16, kSequences = 4, kPoison = 257;

class NonFinite : public ::testing::Test {
 protected:
  /// Prepares a run at step 0 whose batches `failing` contain the token with NaN.
  void prepare(const std::string& run, const std::vector<std::int64_t>& failing,
               const std::vector<std::string>& settings = {}) {
    const data::TokenStream clean({(micro_.directory() / "train.bin").string()}, 0);
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(clean.size()));
    clean.read(0, tokens);
    const data::Batches batches(clean, kLength, kSequences, 7);
    for (const std::int64_t batch : failing) {
      const std::vector<std::int32_t> inputs = batches.get(batch, 1, 2).inputs;
      const auto at = std::search(tokens.begin(), tokens.end(), inputs.begin(), inputs.end());
      ASSERT_NE(at, tokens.end());
      *(at + kLength / 2) = kPoison;
    }
    const fs::path file = micro_.directory() / (run + ".bin");
    data::ShardWriter writer(file, kPoison + 1);
    writer.append(tokens);
    writer.finish();
    settings_ = {"model.vocab_size=258", "model.tie_word_embeddings=false", "data.train=['" + file.string() + "']"};
    settings_.insert(settings_.end(), settings.begin(), settings.end());
    micro_.train(run, settings_, [](std::int64_t) { return SIGTERM; });
    const fs::path checkpoint = data::checkpoint_dir(micro_.dir(run), 0);
    model::Model model = model::Model::load(checkpoint, {});
    kernels::fill(model.parameter("model.embed_tokens.weight").slice(kPoison * 32, {32}), std::nan(""),
                  kernels::Stream{});
    model.save(checkpoint);
    data::write_manifest(checkpoint);
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
  std::vector<std::string> settings_;
};

TEST_F(NonFinite, AStepIsSkippedAndTheRunContinues) {
  prepare("once", {4}, {"checkpoint.every=1"});  // update 5
  EXPECT_EQ(micro_.train("once", settings_).step, 12);
  EXPECT_EQ(failed_steps("once"), (std::vector<std::int64_t>{5}));
  EXPECT_EQ(last_state("once").next_batch, 12);
  // No checkpoint between skipped steps.
  EXPECT_FALSE(fs::exists(data::checkpoint_dir(micro_.dir("once"), 5)));
  EXPECT_FALSE(same(weights("once", 4), weights("once", 6)));
}

TEST_F(NonFinite, ASkippedStepChangesNoWeight) {
  prepare("still", {4, 5});
  micro_.train("still", settings_, [](std::int64_t at) { return at == 6 ? SIGTERM : 0; });
  EXPECT_TRUE(same(weights("still", 6), weights("still", 4)));
  EXPECT_EQ(last_state("still").skipped, 2);
}

TEST_F(NonFinite, ResumedBetweenSkippedStepsItIsTheSameRun) {
  const std::vector<std::int64_t> failing{4, 5, 6};
  prepare("whole", failing);
  micro_.train("whole", settings_);
  prepare("cut", failing);
  for (const std::int64_t stop : {5, 6}) {
    EXPECT_EQ(micro_.train("cut", settings_, [stop](std::int64_t at) { return at == stop ? SIGTERM : 0; }).step, stop);
  }
  EXPECT_EQ(micro_.train("cut", settings_).step, 12);
  EXPECT_EQ(last_state("cut").next_batch, last_state("whole").next_batch);
  EXPECT_GT(last_state("whole").next_batch, 12);
}

TEST_F(NonFinite, AfterManyInARowTheRunGoesBackAndContinuesBehindThem) {
  prepare("back", {4, 5, 6}, {"train.non_finite.skip=1"});
  EXPECT_EQ(micro_.train("back", settings_).step, 12);
  // Updates 5 and 6 fail, and one failure is allowed: the run goes back to step 4 and continues with batch 6. That
  // fails as update 5. No later one fails.
  EXPECT_EQ(failed_steps("back"), (std::vector<std::int64_t>{5}));
  EXPECT_EQ(last_state("back").next_batch, 14);
  EXPECT_EQ(record("back").train.size(), 12u);
  EXPECT_EQ(last_state("back").tokens_seen, 12 * 64);
}

TEST_F(NonFinite, KilledAfterGoingBackItIsTheSameRun) {
  prepare("whole", {4, 5, 6}, {"train.non_finite.skip=1"});
  const std::vector<std::string> settings = settings_;
  micro_.train("whole", settings);
  prepare("killed", {4, 5, 6}, {"train.non_finite.skip=1"});
  struct Crash {};
  int seen = 0;
  EXPECT_THROW(
      micro_.train("killed", settings_, [&](std::int64_t at) { return at == 5 && ++seen == 2 ? throw Crash() : 0; }),
      Crash);
  micro_.train("killed", settings_);
  EXPECT_EQ(last_state("killed").next_batch, last_state("whole").next_batch);
  EXPECT_TRUE(same(weights("killed", 12), weights("whole", 12)));
}

// A run that goes back must not use a checkpoint that a stop wrote between the failing steps.
TEST_F(NonFinite, StoppedBetweenThemAndAgainAfterGoingBack) {
  prepare("whole", {4, 5, 6});
  micro_.train("whole", settings_);
  prepare("twice", {4, 5, 6}, {"checkpoint.keep=1"});
  for (const std::int64_t stop : {6, 5}) {
    EXPECT_EQ(micro_.train("twice", settings_, [stop](std::int64_t at) { return at == stop ? SIGTERM : 0; }).step,
              stop);
  }
  EXPECT_EQ(data::list_checkpoints(micro_.dir("twice")).back().step, 5);
  EXPECT_EQ(micro_.train("twice", settings_).step, 12);
  EXPECT_TRUE(same(weights("twice", 12), weights("whole", 12)));
}

TEST_F(NonFinite, GoingBackTooOftenEndsTheRun) {
  std::vector<std::int64_t> failing(20);
  for (std::size_t i = 0; i < failing.size(); ++i) failing[i] = static_cast<std::int64_t>(i) + 4;
  prepare("vain", failing, {"train.non_finite.skip=1", "train.non_finite.roll_back=3"});
  try {
    micro_.train("vain", settings_);
    FAIL() << "it goes on";
  } catch (const std::exception& error) {
    EXPECT_NE(std::string(error.what()).find("after going back 3 times to step 4"), std::string::npos) << error.what();
  }
  EXPECT_EQ(data::list_checkpoints(micro_.dir("vain")).back().step, 4);
}

TEST_F(NonFinite, WithSkipAndRollBackOfZeroTheFirstOneEndsTheRun) {
  prepare("strict", {4}, {"train.non_finite.skip=0", "train.non_finite.roll_back=0"});
  EXPECT_THROW(micro_.train("strict", settings_), std::exception);
  EXPECT_EQ(data::list_checkpoints(micro_.dir("strict")).back().step, 4);
}

}  // namespace
}  // namespace routescope::train
