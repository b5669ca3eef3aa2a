// A resumed run may change the order of its sums: micro-batch, ranks, device. The log says so, and only then.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <string>

#include "data/records/routing_view.h"
#include "tests/train/run/micro_run.h"
#include "train/config/config.h"
#include "train/run/start.h"

namespace routescope::train {
namespace {

namespace fs = std::filesystem;
using testing::MicroRun;

/// The last checkpoint is of step 6.
void crash_after_7(const MicroRun& micro, const std::string& run) {
  struct Crash {};
  EXPECT_THROW(micro.train(run, {"checkpoint.async=off"}, [](std::int64_t at) { return at == 7 ? throw Crash() : 0; }),
               Crash);
}

TEST(ChangedSums, TheMicroBatchMayChangeAndTheLogSaysWhatThatDoesToBits) {
  const MicroRun micro;
  micro.train("whole");
  const std::string words = "sums may be rounded in another order";
  crash_after_7(micro, "one");
  fs::copy(micro.dir("one"), micro.dir("again"), fs::copy_options::recursive);
  for (const char* run : {"one", "again"}) {
    const MicroRun::Finished finished = micro.execute(run, {"train.micro_batch=1"});
    ASSERT_EQ(finished.status, 0) << finished.err << finished.out;
    EXPECT_NE(finished.out.find("from here on with train.micro_batch 1 (was 2): " + words), std::string::npos)
        << finished.out;
    EXPECT_EQ(finished.out.find(words), finished.out.rfind(words)) << "one line";
  }
  EXPECT_EQ(load_config(micro.dir("one") / "config.yaml", {}).train.micro_batch, 1);
  // Up to the checkpoint the bits are those of before; after it they differ by rounding.
  const auto record = [&micro](const char* run) {
    return data::RoutingRecordView::load(micro.dir(run) / "routing.h5");
  };
  const data::RoutingRecordView found = record("one"), again = record("again"), expected = record("whole");
  ASSERT_EQ(found.train.size(), expected.train.size());
  double most = 0;
  for (std::size_t i = 0; i < found.train.size(); ++i) {
    const double difference = std::abs(found.train[i].loss - expected.train[i].loss);
    EXPECT_LE(difference, i < 6 ? 0 : 2e-3) << "step " << i + 1;
    EXPECT_EQ(found.train[i].loss, again.train[i].loss) << "the same change, the same bits: step " << i + 1;
    most = std::max(most, difference);
  }
  EXPECT_GT(most, 0);
  // Nothing is said where no sum changes.
  crash_after_7(micro, "same");
  const MicroRun::Finished same = micro.execute("same", {"checkpoint.keep=5", "distributed.bucket_mb=2"});
  EXPECT_EQ(same.status, 0) << same.err;
  EXPECT_NE(same.out.find("resuming after step 6"), std::string::npos) << same.out;
  EXPECT_EQ(same.out.find(words), std::string::npos) << same.out;
}

TEST(ChangedSums, AreNamedTogether) {
  const MicroRun micro;
  TrainConfig was = micro.config("whole"), now = was;
  EXPECT_EQ(text_of_changed_sums(was, 2, now, 2), "");
  EXPECT_EQ(text_of_changed_sums(std::nullopt, 2, now, 2), "");
  now.device = "cuda";
  now.train.micro_batch = 1;
  EXPECT_TRUE(
      text_of_changed_sums(was, 2, now, 4)
          .starts_with("from here on with ranks 4 (was 2), train.micro_batch 1 (was 2), device cuda (was cpu): "))
      << text_of_changed_sums(was, 2, now, 4);
}

}  // namespace
}  // namespace routescope::train
