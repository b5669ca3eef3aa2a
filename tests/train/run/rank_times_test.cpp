// Who is the slowest rank: the time that a step takes for each, without waiting, and the line of the log.
#include "train/run/rank_times.h"

#include <gtest/gtest.h>

#include "tests/train/run/micro_run.h"
#include "tests/train/run/trainer.h"

namespace routescope::testing {
namespace {

using train::RankTimes;

/// Another communicator, of which it says that each time one asks another 1e9 s of waiting have passed.
class Waits final : public kernels::Communicator {
 public:
  Waits(kernels::Communicator& of, bool waits) : Communicator(of.place()), of_(of), waits_(waits) {}
  Ticket reduce_scatter(kernels::Tensor piece, kernels::Tensor whole, const kernels::Stream& stream,
                        const std::string& what) override {
    return of_.reduce_scatter(piece, whole, stream, what);
  }
  Ticket all_gather(kernels::Tensor whole, kernels::Tensor piece, const kernels::Stream& stream,
                    const std::string& what) override {
    return of_.all_gather(whole, piece, stream, what);
  }
  void wait(Ticket ticket, const kernels::Stream& stream) override { of_.wait(ticket, stream); }
  void all_reduce(std::span<double> values, kernels::Reduction reduction, const std::string& what) override {
    of_.all_reduce(values, reduction, what);
  }
  std::vector<std::string> gather(const std::string& bytes, const std::string& what) override {
    return of_.gather(bytes, what);
  }
  std::string broadcast(const std::string& bytes, const std::string& what) override {
    return of_.broadcast(bytes, what);
  }
  Traffic traffic() const override { return {.bytes = 0, .seconds_waited = waits_ ? 1e9 * asked_++ : 0}; }

 private:
  kernels::Communicator& of_;
  bool waits_;
  mutable int asked_ = 0;
};

TEST(RankTimes, OfAStepAreOfEachRankWithoutItsWaiting) {
  const MicroRun micro;
  for (const int slow : {0, 1, 2}) {
    StrictRanks::run(3, [&](kernels::Communicator& communicator) {
      Waits waits(communicator, communicator.rank() != slow);
      const train::TrainConfig config = micro.config("unused", {"train.micro_batch=1"});
      Trainer trainer(config, waits);
      const train::StepResult result = trainer.step(1);
      EXPECT_EQ(result.slowest_rank, slow);
      EXPECT_GT(result.rank_seconds_slowest, 0);
      EXPECT_EQ(result.rank_seconds_median, 0);
    });
  }
}

TEST(RankTimes, OfARankAloneAreItsOwn) {
  const MicroRun micro;
  StrictRanks::run(1, [&](kernels::Communicator& communicator) {
    const train::TrainConfig config = micro.config("unused");
    Trainer trainer(config, communicator);
    const train::StepResult result = trainer.step(1);
    EXPECT_EQ(result.slowest_rank, 0);
    EXPECT_GT(result.rank_seconds_slowest, 0);
    EXPECT_EQ(result.rank_seconds_median, result.rank_seconds_slowest);
  });
}

data::TrainRow step_of(std::int64_t slowest, double median, double seconds) {
  data::TrainRow row;
  row.slowest_rank = slowest;
  row.rank_seconds_median = median;
  row.rank_seconds_slowest = seconds;
  return row;
}

TEST(RankTimes, NameTheRankThatWasTheSlowestMostOften) {
  RankTimes times({"node1", "node1", "node2"});
  EXPECT_EQ(times.text(), "");
  times.add(step_of(2, 1.0, 2.0));
  times.add(step_of(2, 1.0, 1.5));
  times.add(step_of(0, 1.0, 1.1));
  EXPECT_EQ(times.text(),
            "rank 2 (node2) was the slowest in 2 of 3 steps; the slowest rank took 1.53 times the median");
}

TEST(RankTimes, SayNothingOfARankAloneOrWhereNothingIsKnown) {
  RankTimes alone({"node1"});
  alone.add(step_of(0, 1.0, 1.0));
  EXPECT_EQ(alone.text(), "");
  RankTimes unknown({"node1", "node2"});
  unknown.add({});
  EXPECT_EQ(unknown.text(), "");
  RankTimes not_first{{}};  // of a rank but the first
  not_first.add(step_of(1, 1.0, 2.0));
  EXPECT_EQ(not_first.text(), "");
}

}  // namespace
}  // namespace routescope::testing
