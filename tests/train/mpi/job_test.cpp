// Whole runs on several ranks under mpirun: the same run as that of one process. It resumes on any number of ranks, and
// all ranks stop or refuse together.
#include "tests/train/mpi/job.h"

#include <gtest/gtest.h>

#include <cmath>
#include <csignal>
#include <filesystem>

#include "data/base/error.h"
#include "data/base/files.h"
#include "data/base/manifest.h"
#include "data/base/sha256.h"
#include "data/records/routing_view.h"
#include "model/files/rounded_weights.h"
#include "train/checkpoint/checkpoint_directory.h"
#include "train/config/run_directory.h"

namespace routescope::train {
namespace {

namespace fs = std::filesystem;
using testing::error_lines;
using testing::expect_same_run;
using testing::job_settings;
using testing::MicroRun;
using testing::wait_for_ranks;
using testing::wait_until;

class Job : public ::testing::Test {
 protected:
  void expect_finished(const std::string& run, const std::vector<std::string>& settings, int ranks) const {
    const MicroRun::Finished finished = micro_.execute(run, settings, nullptr, ranks);
    ASSERT_EQ(finished.status, 0) << finished.err << finished.out;
  }
  data::RoutingRecordView record(const std::string& run) const {
    return data::RoutingRecordView::load(micro_.dir(run) / "routing.h5");
  }
  fs::path checkpoint(const std::string& run, std::int64_t step) const {
    return data::checkpoint_dir(micro_.dir(run), step);
  }

  MicroRun micro_;
};

// AdamW divides by the square root of a second moment that is almost 0 at first. With the usual eps this would magnify
// rounding; with 1e-3 the comparison is one of the sums of gradients.
TEST_F(Job, AnyNumberOfRanksTrainsTheSameModel) {
  const std::vector<std::string> settings = testing::job_settings(50, {"train.optimizer.eps=1e-3"});
  for (const int ranks : {1, 2, 3, 4}) expect_finished("r" + std::to_string(ranks), settings, ranks);
  const data::RoutingRecordView one = record("r1");
  ASSERT_EQ(one.train.size(), 50u);
  EXPECT_LT(one.train.back().loss, one.train.front().loss - 0.5) << "it learns";
  for (const char* run : {"r2", "r3", "r4"}) {
    SCOPED_TRACE(run);
    const data::RoutingRecordView many = record(run);
    ASSERT_EQ(many.train.size(), one.train.size());
    for (std::size_t i = 0; i < one.train.size(); ++i) {
      EXPECT_NEAR(many.train[i].loss, one.train[i].loss, 2e-4) << "step " << i + 1;
      EXPECT_NEAR(many.train[i].grad_norm, one.train[i].grad_norm, 1e-3 * one.train[i].grad_norm) << "step " << i + 1;
      EXPECT_GE(many.train[i].slowest_rank, 0);
      EXPECT_LT(many.train[i].slowest_rank, run[1] - '0');
      EXPECT_GE(many.train[i].rank_seconds_slowest, many.train[i].rank_seconds_median);
    }
    ASSERT_EQ(many.valid.size(), one.valid.size());
    for (std::size_t i = 0; i < one.valid.size(); ++i) EXPECT_NEAR(many.valid[i].loss, one.valid[i].loss, 2e-4);
    ASSERT_EQ(many.snapshots.size(), one.snapshots.size());
    for (std::size_t i = 0; i < one.snapshots.size(); ++i) {
      ASSERT_EQ(many.snapshots[i].step, one.snapshots[i].step);
      for (std::size_t j = 0; j < one.snapshots[i].alpha_mean.size(); ++j) {
        const float a = many.snapshots[i].alpha_mean[j], b = one.snapshots[i].alpha_mean[j];
        if (std::isnan(a) && std::isnan(b)) continue;
        EXPECT_NEAR(a, b, 1e-3) << "snapshot " << i;
      }
    }
    EXPECT_EQ(many.alpha_steps, one.alpha_steps);
  }
  // Before the first update the weights are the same, so the validation loss is the same for every number of ranks.
  EXPECT_EQ(record("r4").valid.front().loss, one.valid.front().loss);
}

TEST_F(Job, ZeroOneAndZeroGiveTheSameBits) {
  for (const char* precision : {"f32", "bf16"}) {
    for (const char* zero : {"0", "1"}) {
      expect_finished(
          std::string(precision) + zero,
          testing::job_settings(12, {std::string("precision=") + precision, std::string("distributed.zero=") + zero}),
          3);
    }
    testing::expect_same_run(micro_.dir(std::string(precision) + "0"), micro_.dir(std::string(precision) + "1"));
  }
}

TEST_F(Job, ResumesToTheSameBitsOnAsManyRanksAndOnOtherNumbersToo) {
  const std::vector<std::string> half = testing::job_settings(10, {"train.schedule.kind=constant"}),
                                 whole = testing::job_settings(20, {"train.schedule.kind=constant"});
  expect_finished("undisturbed", whole, 4);
  expect_finished("four", half, 4);
  for (const char* copy : {"one", "three"}) {
    fs::copy(micro_.dir("four"), micro_.dir(copy), fs::copy_options::recursive);
  }
  expect_finished("four", whole, 4);
  expect_finished("three", whole, 3);
  expect_finished("one", whole, 0);
  for (const char* file : {"model.safetensors", "train_state-00002-of-00004.safetensors"}) {
    EXPECT_TRUE(data::read_text(checkpoint("four", 20) / file) == data::read_text(checkpoint("undisturbed", 20) / file))
        << file;
  }
  const data::RoutingRecordView expected = record("undisturbed");
  for (const char* run : {"one", "three", "four"}) {
    SCOPED_TRACE(run);
    const data::RoutingRecordView found = record(run);
    ASSERT_EQ(found.train.size(), 20u);
    for (std::size_t i = 0; i < 20; ++i) {
      if (i < 10 || std::string(run) == "four") {
        EXPECT_EQ(found.train[i].loss, expected.train[i].loss) << "step " << i + 1;
      } else {
        EXPECT_NEAR(found.train[i].loss, expected.train[i].loss, 2e-3) << "step " << i + 1;
      }
    }
  }
}

TEST_F(Job, ARunGoesOnOnMoreRanksThanItHadMicroBatches) {
  // 12 sequences a step. Six in a micro-batch are enough for two ranks.
  std::vector<std::string> large = testing::job_settings(10, {"train.schedule.kind=constant", "train.micro_batch=6"}),
                           small = testing::job_settings(20, {"train.schedule.kind=constant", "train.micro_batch=1"});
  expect_finished("grown", large, 2);
  large.push_back("train.steps=20");
  const MicroRun::Finished refused = micro_.execute("grown", large, nullptr, 3);
  EXPECT_EQ(refused.status, 1);
  EXPECT_NE(refused.err.find("a smaller train.micro_batch makes more"), std::string::npos) << refused.err;
  const MicroRun::Finished finished = micro_.execute("grown", small, nullptr, 3);
  ASSERT_EQ(finished.status, 0) << finished.err << finished.out;
  const std::string words = "from here on with ranks 3 (was 2), train.micro_batch 1 (was 6): sums may be rounded";
  EXPECT_NE(finished.out.find(words), std::string::npos) << finished.out;
  EXPECT_EQ(finished.out.find(words), finished.out.rfind(words)) << "one line, of one rank";
  expect_finished("small", small, 3);
  const data::RoutingRecordView found = record("grown"), expected = record("small");
  ASSERT_EQ(found.train.size(), 20u);
  for (std::size_t i = 0; i < 20; ++i)
    EXPECT_NEAR(found.train[i].loss, expected.train[i].loss, 2e-3) << "step " << i + 1;
}

TEST_F(Job, OlderCheckpointsOfSeveralRanksLoseTheirStates) {
  const std::vector<std::string> half = testing::job_settings(10, {"train.schedule.kind=constant"}),
                                 whole = testing::job_settings(20, {"train.schedule.kind=constant"});
  std::vector<std::string> kept_half = half, kept_whole = whole;
  for (std::vector<std::string>* settings : {&kept_half, &kept_whole})
    settings->insert(settings->end(), {"checkpoint.keep_state=1", "checkpoint.weights_dtype=bf16"});
  expect_finished("all", half, 2);
  expect_finished("all", whole, 2);
  expect_finished("kept", kept_half, 2);
  expect_finished("kept", kept_whole, 2);
  for (const char* file :
       {"model.safetensors", "train_state-00001-of-00002.safetensors", "train_state-00002-of-00002.safetensors"})
    EXPECT_TRUE(data::read_text(checkpoint("kept", 20) / file) == data::read_text(checkpoint("all", 20) / file))
        << file;
  for (const data::CheckpointEntry& entry : data::list_checkpoints(micro_.dir("kept"))) {
    EXPECT_NO_THROW(data::verify_manifest(entry.dir));
    EXPECT_EQ(has_state(entry), entry.step == 20) << entry.step;
    EXPECT_EQ(model::rounded_from(entry.dir / "model.safetensors"),
              entry.step == 20 ? "" : data::sha256_file(checkpoint("all", entry.step) / "model.safetensors"));
  }
}

TEST_F(Job, ASignalToOneRankStopsAllWithACheckpoint) {
  const std::vector<std::string> settings = testing::job_settings(40);
  expect_finished("whole", settings, 2);
  // SIGTERM goes to one rank, as from a person. SIGUSR1 goes to mpirun, as from Slurm; mpirun hands it on.
  for (const int signal : {SIGTERM, SIGUSR1}) {
    for (int attempt = 0;; ++attempt) {
      ASSERT_LT(attempt, 20);
      const std::string run = fmt::format("signal{}-{}", signal, attempt);
      const pid_t child = micro_.start(run, settings, nullptr, 2);
      const std::vector<pid_t> ranks = testing::wait_for_ranks(child, 2);
      if (ranks.empty() || !testing::wait_until(child, [&] { return fs::exists(checkpoint(run, 5)); })) {
        ASSERT_EQ(micro_.wait(child, run).status, 0);
        continue;  // it ended before the signal
      }
      ::kill(signal == SIGTERM ? ranks[1] : child, signal);
      const MicroRun::Finished finished = micro_.wait(child, run);
      if (finished.status == 0) continue;
      EXPECT_EQ(finished.status, 128 + signal) << finished.err;
      const std::string step = std::to_string(data::list_checkpoints(micro_.dir(run)).back().step);
      EXPECT_NE(finished.out.find(fmt::format("stopped by signal {} after step {};", signal, step)), std::string::npos)
          << finished.out;
      expect_finished(run, settings, 2);
      testing::expect_same_run(micro_.dir(run), micro_.dir("whole"));
      break;
    }
  }
}

TEST_F(Job, AnErrorIsReportedOnce) {
  const auto expect_one_line = [this](const std::string& run, const std::vector<std::string>& settings,
                                      const std::string& words, int status) {
    const MicroRun::Finished finished = micro_.execute(run, settings, nullptr, 3);
    EXPECT_EQ(finished.status, status) << finished.err;
    const std::vector<std::string> lines = testing::error_lines(finished.err);
    ASSERT_EQ(lines.size(), 1u) << finished.err;
    EXPECT_NE(lines[0].find(words), std::string::npos) << lines[0];
  };
  expect_one_line("usage", {"train.stps=3"}, "the nearest known one is train.steps", 2);
  expect_one_line("value", {"train.tokens_per_step=64"}, "expected at least one for each of 3 ranks", 1);
  expect_one_line("data", testing::job_settings(3, {"data.valid=[/nowhere/x.bin]"}), "/nowhere/x.bin", 1);
  EXPECT_FALSE(fs::exists(micro_.dir("data")));
  const RunLock lock(micro_.dir("locked"));
  expect_one_line("locked", testing::job_settings(3), "another process is training in this directory", 1);
}

}  // namespace
}  // namespace routescope::train
