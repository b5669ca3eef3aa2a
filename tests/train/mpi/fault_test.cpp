// Jobs in trouble: ranks killed or stopped, full disks, directories that vanish, clocks that jump. None loses a
// finished checkpoint, none hangs, and every restart ends in the bits of an undisturbed run.
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <optional>
#include <random>
#include <thread>

#include "data/base/error.h"
#include "data/base/files.h"
#include "data/base/manifest.h"
#include "data/records/routing_view.h"
#include "kernels/comm/communicator.h"
#include "tests/places.h"
#include "tests/train/mpi/job.h"

namespace routescope::train {
namespace {

namespace fs = std::filesystem;
using testing::checkpoint_names;
using testing::children_of;
using testing::ended;
using testing::error_lines;
using testing::expect_same_run;
using testing::job_settings;
using testing::lives;
using testing::MicroRun;
using testing::wait_for_ranks;
using testing::wait_until;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

class Fault : public ::testing::Test {
 protected:
  fs::path checkpoints(const std::string& run) const { return micro_.dir(run) / "checkpoints"; }
  void expect_finished(const std::string& run, const std::vector<std::string>& settings, int ranks = 2) const {
    const MicroRun::Finished finished = micro_.execute(run, settings, nullptr, ranks);
    ASSERT_EQ(finished.status, 0) << finished.err << finished.out;
  }
  void expect_intact(const std::string& run) const {
    for (const data::CheckpointEntry& checkpoint : data::list_checkpoints(micro_.dir(run))) {
      EXPECT_NO_THROW(data::verify_manifest(checkpoint.dir)) << checkpoint.dir;
    }
  }
  /// Waits until the run has a checkpoint of step 5 or later.
  bool wait_for_steps(pid_t child, const std::string& run) const {
    return testing::wait_until(child, [&] {
      const std::vector<data::CheckpointEntry> all = data::list_checkpoints(micro_.dir(run));
      return !all.empty() && all.back().step >= 5;
    });
  }

  MicroRun micro_;
};

// Four tests of 50 kills each, which can run at the same time.
class Killed : public Fault, public ::testing::WithParamInterface<std::uint64_t> {};

TEST_P(Killed, AnyRankAtRandomMomentsResumesToTheSameBits) {
  constexpr int kKills = 50, kRanks = 2;
  SCOPED_TRACE("seed " + std::to_string(GetParam()));
  std::mt19937_64 random(GetParam());
  const std::vector<std::string> settings = testing::job_settings(25);
  const auto begin = Clock::now();
  expect_finished("whole", settings, kRanks);
  // The load of the machine varies: the moments lie within the shortest run so far.
  double shortest = seconds_since(begin);
  std::uniform_real_distribution<double> moment(0.0, 0.95);
  int kills = 0, runs = 0;
  bool finished = true;
  std::string run;
  while (kills < kKills || !finished) {
    ASSERT_LT(runs, 3 * kKills) << "it is always over before it can be killed";
    if (finished) run = "killed" + std::to_string(runs++);
    std::vector<std::string> before;  // checkpoints that must survive the kill
    if (fs::exists(checkpoints(run))) before = testing::checkpoint_names(micro_.dir(run));
    const auto started = Clock::now();
    const pid_t child = micro_.start(run, settings, nullptr, kRanks);
    bool killed = false;
    if (kills < kKills) {
      const double at = moment(random) * shortest;
      testing::wait_until(child, [&] { return seconds_since(started) > at; });
      const std::vector<pid_t> ranks = testing::children_of(child);
      if (!ranks.empty()) {
        const pid_t victim = ranks[random() % ranks.size()];
        killed = ::kill(victim, SIGKILL) == 0;
      }
    }
    const MicroRun::Finished end = micro_.wait(child, run);
    finished = end.status == 0;
    ASSERT_TRUE(finished || killed) << end.status << ": " << end.err;
    if (finished && before.empty()) shortest = std::min(shortest, seconds_since(started));
    if (!finished) ++kills;
    for (const std::string& name : before) {
      if (name.starts_with(".")) continue;  // not finished
      EXPECT_TRUE(fs::exists(checkpoints(run) / name)) << name << " is lost";
    }
    expect_intact(run);
    if (!finished) continue;
    testing::expect_same_run(micro_.dir(run), micro_.dir("whole"));
    EXPECT_EQ(testing::checkpoint_names(micro_.dir(run)), testing::checkpoint_names(micro_.dir("whole")));
    fs::remove_all(micro_.dir(run));
  }
  RecordProperty("runs", runs);
}
INSTANTIATE_TEST_SUITE_P(Seeds, Killed, ::testing::Values(20260101u, 20260102u, 20260103u, 20260104u));

TEST_F(Fault, AStoppedRankIsNamedAndEndsTheJob) {
  const std::vector<std::string> settings = testing::job_settings(100000, {"distributed.timeout_seconds=3"});
  const pid_t child = micro_.start("stopped", settings, nullptr, 3);
  const std::vector<pid_t> ranks = testing::wait_for_ranks(child, 3);
  ASSERT_EQ(ranks.size(), 3u);
  ASSERT_TRUE(wait_for_steps(child, "stopped"));
  ::kill(ranks[1], SIGSTOP);
  const auto begin = Clock::now();
  const MicroRun::Finished finished = micro_.wait(child, "stopped");
  EXPECT_LT(seconds_since(begin), 20);
  EXPECT_EQ(finished.status, kernels::lost_rank_status) << finished.err;
  const std::vector<std::string> lines = testing::error_lines(finished.err);
  ASSERT_EQ(lines.size(), 1u) << finished.err;
  for (const std::string& words : {std::string("rank 1 "), "process " + std::to_string(ranks[1])}) {
    EXPECT_NE(lines[0].find(words), std::string::npos) << lines[0];
  }
  for (const pid_t rank : ranks)
    EXPECT_TRUE(testing::wait_until(
        0, [rank] { return !testing::lives(rank); }, 10))
        << "left behind";
  expect_intact("stopped");
}

TEST_F(Fault, AFullDiskOnOneRankDamagesNoCheckpoint) {
  const std::vector<std::string> settings =
      testing::job_settings(20, {"model.intermediate_size=1024", "routing.sequences=1"});
  expect_finished("roomy", settings);
  struct Stop {};
  const fs::path dir = micro_.dir("full");
  // One rank has a limit on file sizes, so that its part of the state does not fit.
  const pid_t child = micro_.start("full", settings, nullptr, 2);
  const std::vector<pid_t> ranks = testing::wait_for_ranks(child, 2);
  if (!ranks.empty() && wait_for_steps(child, "full")) {
    const rlimit limit{4096, 4096};
    ::prlimit(ranks[1], RLIMIT_FSIZE, &limit, nullptr);
  }
  const MicroRun::Finished finished = micro_.wait(child, "full");
  if (finished.status != 0) {
    EXPECT_EQ(finished.status, 1) << finished.err;
    const std::vector<std::string> lines = testing::error_lines(finished.err);
    ASSERT_EQ(lines.size(), 1u) << finished.err;
    EXPECT_NE(lines[0].find("rank 1: "), std::string::npos) << lines[0];
    EXPECT_NE(lines[0].find("train_state-00002-of-00002"), std::string::npos) << lines[0];
  }
  expect_intact("full");
  expect_finished("full", settings);
  testing::expect_same_run(dir, micro_.dir("roomy"));
}

/// A mount that is undone at the end. Mounting needs root, and a container may forbid it even then.
class Mount {
 public:
  Mount(const char* source, fs::path at, const char* type, unsigned long flags, const char* options)
      : at_(std::move(at)), mounted_(::mount(source, at_.c_str(), type, flags, options) == 0) {}
  ~Mount() {
    if (mounted_) ::umount2(at_.c_str(), MNT_DETACH);
  }
  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;
  explicit operator bool() const { return mounted_; }

 private:
  fs::path at_;
  bool mounted_;
};

TEST_F(Fault, AFullFileSystemEndsTheJob) {
  const std::vector<std::string> settings = testing::job_settings(400, {"checkpoint.keep=3", "checkpoint.every=20"});
  expect_finished("whole", settings);
  const fs::path at = micro_.directory() / "disk", run = at / "run";
  fs::create_directories(at);
  const Mount disk("tmpfs", at, "tmpfs", 0, "size=64m");
  if (!disk) GTEST_SKIP() << "mounting a file system needs root and CAP_SYS_ADMIN";
  std::vector<std::string> there = settings;
  there.push_back("run.dir=" + run.string());
  const pid_t child = micro_.start("disk", there, nullptr, 2);
  ASSERT_TRUE(testing::wait_until(child, [&] { return fs::exists(run / "checkpoints" / "step-00000020"); }));
  std::ofstream filler(at / "filler", std::ios::binary);
  const std::string block(1 << 12, 'x');
  while (filler.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
  }
  const MicroRun::Finished finished = micro_.wait(child, "disk");
  EXPECT_EQ(finished.status, 1) << finished.err;
  const std::vector<std::string> lines = testing::error_lines(finished.err);
  ASSERT_EQ(lines.size(), 1u) << finished.err;
  EXPECT_NE(lines[0].find("No space left on device"), std::string::npos) << lines[0];
  ASSERT_FALSE(data::list_checkpoints(run).empty());
  for (const data::CheckpointEntry& checkpoint : data::list_checkpoints(run))
    EXPECT_NO_THROW(data::verify_manifest(checkpoint.dir));
  filler.close();
  fs::remove(at / "filler");
  expect_finished("disk", there);
  testing::expect_same_run(run, micro_.dir("whole"));
}

TEST_F(Fault, AReadOnlyDirectoryEndsTheJob) {
  const std::vector<std::string> settings = testing::job_settings(400, {"checkpoint.keep=3", "checkpoint.every=20"});
  expect_finished("whole", settings);
  const pid_t child = micro_.start("readonly", settings, nullptr, 2);
  ASSERT_TRUE(wait_for_steps(child, "readonly"));
  const fs::path dir = checkpoints("readonly");
  {
    // Permissions do not stop root, but a read-only mount does.
    std::optional<Mount> mounted;
    if (::geteuid() == 0) {
      mounted.emplace(dir.c_str(), dir, nullptr, MS_BIND, nullptr);
      if (!*mounted || ::mount(nullptr, dir.c_str(), nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr) != 0) {
        ::kill(child, SIGKILL);
        micro_.wait(child, "readonly");
        GTEST_SKIP() << "root without CAP_SYS_ADMIN cannot make a directory read-only";
      }
    } else {
      fs::permissions(dir, fs::perms::owner_read | fs::perms::owner_exec);
    }
    const MicroRun::Finished finished = micro_.wait(child, "readonly");
    EXPECT_EQ(finished.status, 1) << finished.err;
    const std::vector<std::string> lines = testing::error_lines(finished.err);
    ASSERT_EQ(lines.size(), 1u) << finished.err;
    EXPECT_NE(lines[0].find(::geteuid() == 0 ? "Read-only file system" : "Permission denied"), std::string::npos)
        << lines[0];
  }
  fs::permissions(dir, fs::perms::owner_all);
  expect_intact("readonly");
  expect_finished("readonly", settings);
  testing::expect_same_run(micro_.dir("readonly"), micro_.dir("whole"));
}

// A checkpoint that is being written when the directory vanishes fails with an error. The next one makes it again.
TEST_F(Fault, AVanishedCheckpointDirectory) {
  const std::vector<std::string> settings = testing::job_settings(60);
  expect_finished("whole", settings);
  const pid_t child = micro_.start("vanished", settings, nullptr, 2);
  ASSERT_TRUE(wait_for_steps(child, "vanished"));
  fs::rename(checkpoints("vanished"), micro_.dir("elsewhere"));
  const MicroRun::Finished finished = micro_.wait(child, "vanished");
  if (finished.status == 0) {
    testing::expect_same_run(micro_.dir("vanished"), micro_.dir("whole"));
  } else {
    EXPECT_EQ(finished.status, 1) << finished.err;
    EXPECT_EQ(testing::error_lines(finished.err).size(), 1u) << finished.err;
    EXPECT_NE(finished.err.find("checkpoints"), std::string::npos) << finished.err;
  }
  // Once the directory is moved back, the run resumes from it.
  fs::remove_all(checkpoints("vanished"));
  fs::rename(micro_.dir("elsewhere"), checkpoints("vanished"));
  expect_intact("vanished");
  expect_finished("vanished", settings);
  testing::expect_same_run(micro_.dir("vanished"), micro_.dir("whole"));
}

// Every reading of the calendar clock jumps by up to a day, forwards or backwards (jumping_clock.cpp).
TEST_F(Fault, AJumpingClockChangesNothing) {
  const std::vector<std::string> settings = testing::job_settings(15, {"distributed.timeout_seconds=20"});
  expect_finished("steady", settings);
  const MicroRun::Finished finished = micro_.execute(
      "jumping", settings, [] { ::setenv("LD_PRELOAD", (testing::bin_dir() + "/libjumping_clock.so").c_str(), 1); }, 2);
  ASSERT_EQ(finished.status, 0) << finished.err;
  EXPECT_EQ(testing::error_lines(finished.err).size(), 0u) << finished.err;
  testing::expect_same_run(micro_.dir("jumping"), micro_.dir("steady"));
  for (const data::TrainRow& row : data::RoutingRecordView::load(micro_.dir("jumping") / "routing.h5").train) {
    EXPECT_GT(row.seconds, 0);
    EXPECT_LT(row.seconds, 60);
  }
}

TEST_F(Fault, ACutRecord) {
  const std::vector<std::string> whole = testing::job_settings(20, {"train.schedule.kind=constant"});
  expect_finished("whole", whole);
  expect_finished("half", testing::job_settings(10, {"train.schedule.kind=constant"}));
  const auto size = fs::file_size(micro_.dir("half") / "routing.h5");
  int recovered = 0, refused = 0;
  for (const double share : {0.0, 0.1, 0.5, 0.9, 0.99}) {
    SCOPED_TRACE(share);
    fs::remove_all(micro_.dir("cut"));
    fs::copy(micro_.dir("half"), micro_.dir("cut"), fs::copy_options::recursive);
    const auto kept = static_cast<std::uintmax_t>(share * static_cast<double>(size));
    fs::resize_file(micro_.dir("cut") / "routing.h5", kept);
    const MicroRun::Finished finished = micro_.execute("cut", whole, nullptr, 2);
    expect_intact("cut");
    if (finished.status == 0) {
      ++recovered;
      testing::expect_same_run(micro_.dir("cut"), micro_.dir("whole"));
      continue;
    }
    ++refused;
    EXPECT_EQ(finished.status, 1) << finished.err;
    const std::vector<std::string> lines = testing::error_lines(finished.err);
    ASSERT_EQ(lines.size(), 1u) << finished.err;
    EXPECT_NE(lines[0].find("routing.h5"), std::string::npos) << lines[0];
    EXPECT_EQ(fs::file_size(micro_.dir("cut") / "routing.h5"), kept) << "what was left of it is gone";
  }
  EXPECT_EQ(recovered + refused, 5);
}

}  // namespace
}  // namespace routescope::train
