// The real binary in trouble: killed at random moments, signalled, read while it writes, on a full disk, in a directory
// that cannot be written, and with a second process in the same directory.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include <thread>

#include "data/base/error.h"
#include "data/base/files.h"
#include "data/base/manifest.h"
#include "data/records/routing_view.h"
#include "tests/sanitizers.h"
#include "tests/train/run/micro_run.h"
#include "train/config/run_directory.h"

namespace routescope::train {
namespace {

namespace fs = std::filesystem;
using testing::checkpoint_names;
using testing::expect_same_run;
using testing::MicroRun;
using Clock = std::chrono::steady_clock;

// Long enough to be killed before it ends.
const std::vector<std::string> kLonger{"train.steps=60", "checkpoint.every=5", "routing.every=3"};

class Crash : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    micro_ = new MicroRun;
    const auto begin = Clock::now();
    const MicroRun::Finished whole = micro_->execute("whole", kLonger);
    seconds_ = std::chrono::duration<double>(Clock::now() - begin).count();
    ASSERT_EQ(whole.status, 0) << whole.err;
  }
  static void TearDownTestSuite() {
    delete micro_;
    micro_ = nullptr;
  }
  static bool ended(pid_t child) {
    siginfo_t info{};
    return ::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == child;
  }
  static std::string reading_error(const fs::path& record) {
    try {
      data::RoutingRecordView::load(record);
    } catch (const std::exception& error) {
      return error.what();
    }
    return "";
  }
  static void expect_one_line(const MicroRun::Finished& finished, const std::string& words) {
    EXPECT_EQ(finished.status, 1) << finished.err;
    EXPECT_NE(finished.err.find(words), std::string::npos) << finished.err;
    EXPECT_EQ(std::ranges::count(finished.err, '\n'), 1) << finished.err;
  }

  static MicroRun* micro_;
  static double seconds_;  // of the undisturbed run
};
MicroRun* Crash::micro_ = nullptr;
double Crash::seconds_ = 0;

// A run that ends before it could be killed is compared and started again in a new directory.
TEST_F(Crash, AfterKillsAtRandomMomentsItResumesToTheSameBits) {
  constexpr std::uint64_t kSeed = 20240611;
  constexpr int kKills = 12;
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  std::mt19937_64 random(kSeed);
  std::uniform_real_distribution<double> moment(0.0, 0.7 * seconds_);
  int kills = 0, runs = 0;
  bool finished = true;
  std::string run;
  while (kills < kKills || !finished) {
    ASSERT_LT(runs, 30) << "it is always over before it can be killed";
    if (finished) run = "killed" + std::to_string(runs++);
    const pid_t child = micro_->start(run, kLonger);
    if (kills < kKills) {
      std::this_thread::sleep_for(std::chrono::duration<double>(moment(random)));
      ::kill(child, SIGKILL);
    }
    const MicroRun::Finished end = micro_->wait(child, run);
    finished = end.status == 0;
    ASSERT_TRUE(finished || end.status == -SIGKILL) << end.err;
    if (!finished) ++kills;
    const fs::path record = micro_->dir(run) / "routing.h5";
    EXPECT_EQ(fs::exists(record) ? reading_error(record) : "", "");
    for (const data::CheckpointEntry& checkpoint : data::list_checkpoints(micro_->dir(run))) {
      EXPECT_NO_THROW(data::verify_manifest(checkpoint.dir)) << checkpoint.dir;
    }
    if (!finished) continue;
    testing::expect_same_run(micro_->dir(run), micro_->dir("whole"));
    EXPECT_EQ(testing::checkpoint_names(micro_->dir(run)), testing::checkpoint_names(micro_->dir("whole")));
  }
  RecordProperty("runs", runs);
}

TEST_F(Crash, AReaderThatPollsDuringARunNeverFails) {
  const fs::path record = micro_->dir("polled") / "routing.h5";
  const auto poll = [&](pid_t child, std::int64_t expected_last) {
    std::size_t reads = 0;
    std::int64_t last = -1;
    while (!ended(child)) {
      if (!fs::exists(record)) continue;
      const data::RoutingRecordView view = data::RoutingRecordView::load(record);
      ASSERT_FALSE(view.info.reads.empty());
      for (std::size_t i = 0; i < view.train.size(); ++i)
        ASSERT_EQ(view.train[i].step, static_cast<std::int64_t>(i) + 1);
      for (const data::RoutingSnapshot& row : view.snapshots) ASSERT_EQ(row.query.size(), view.info.reads.size() * 32);
      ++reads;
    }
    EXPECT_GT(reads, 3u);
    const data::RoutingRecordView view = data::RoutingRecordView::load(record);
    last = view.train.empty() ? 0 : view.train.back().step;
    EXPECT_EQ(last, expected_last);
  };
  std::vector<std::string> half = kLonger;
  half.push_back("train.schedule.kind=constant");
  half.push_back("train.steps=30");
  pid_t child = micro_->start("polled", half);
  ASSERT_NO_THROW(poll(child, 30));
  EXPECT_EQ(micro_->wait(child, "polled").status, 0);
  half.back() = "train.steps=60";  // also while a resume replaces the record
  child = micro_->start("polled", half);
  ASSERT_NO_THROW(poll(child, 60));
  EXPECT_EQ(micro_->wait(child, "polled").status, 0);
}

TEST_F(Crash, ASignalWritesACheckpointAndALineInTheLog) {
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU}) {
    // If the run has ended before the signal, the log has no such line: try again.
    for (int attempt = 0;; ++attempt) {
      ASSERT_LT(attempt, 20);
      const std::string run = fmt::format("signalled{}-{}", signal, attempt);
      const pid_t child = micro_->start(run, kLonger);
      while (!ended(child) && !fs::exists(micro_->dir(run) / "checkpoints" / "step-00000005")) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      ::kill(child, signal);
      const MicroRun::Finished finished = micro_->wait(child, run);
      if (finished.status == 0) continue;
      ASSERT_EQ(finished.status, 128 + signal) << finished.err;
      const std::string step = std::to_string(data::list_checkpoints(micro_->dir(run)).back().step);
      EXPECT_NE(finished.out.find(fmt::format("stopped by signal {} after step {};", signal, step)), std::string::npos)
          << finished.out;
      EXPECT_EQ(micro_->execute(run, kLonger).status, 0);
      testing::expect_same_run(micro_->dir(run), micro_->dir("whole"));
      break;
    }
  }
}

TEST_F(Crash, IgnoredSignalsStayIgnored) {
  const pid_t child = micro_->start("nohup", kLonger, [] { std::signal(SIGHUP, SIG_IGN); });
  const fs::path checkpoints = micro_->dir("nohup") / "checkpoints";
  while (!ended(child) && !fs::exists(checkpoints / "step-00000020")) {
    if (fs::exists(checkpoints / "step-00000001")) ::kill(child, SIGHUP);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(micro_->wait(child, "nohup").status, 0);
}

// The reader of the log is gone: the run goes on.
TEST_F(Crash, AClosedPipeBehindTheLogDoesNotEndTheRun) {
  const MicroRun::Finished finished = micro_->execute("pipe", {}, [] {
    int ends[2];
    if (::pipe(ends) != 0) ::_exit(99);
    ::close(ends[0]);
    ::dup2(ends[1], STDOUT_FILENO);
  });
  EXPECT_EQ(checkpoint_names(micro_->dir("pipe")).back(), "step-00000012") << finished.err;
}

// A limit on processor time sends SIGXCPU before it kills.
TEST_F(Crash, TheLimitOnProcessorTimeEndsItWithACheckpoint) {
  const MicroRun::Finished finished = micro_->execute("limited", {"train.steps=1000000", "valid.every=0"}, [] {
    const rlimit seconds{2, 60};
    ::setrlimit(RLIMIT_CPU, &seconds);
  });
  EXPECT_EQ(finished.status, 128 + SIGXCPU) << finished.err;
  EXPECT_NE(finished.out.find("stopped by signal 24 after step "), std::string::npos) << finished.out;
}

/// Threads of a process that a signal can reach (SigBlk of /proc/PID/task/*/status, a hexadecimal mask), and all
/// threads.
std::pair<int, int> threads_open_to(pid_t process, int signal) {
  int open = 0, all = 0;
  for (const auto& task : fs::directory_iterator(fmt::format("/proc/{}/task", process))) {
    std::ifstream status(task.path() / "status");
    for (std::string line; std::getline(status, line);) {
      if (line.rfind("SigBlk:", 0) != 0) continue;
      ++all;
      if ((std::stoull(line.substr(7), nullptr, 16) >> (signal - 1) & 1) == 0) ++open;
    }
  }
  return {open, all};
}

// While a run reads its shards there is nothing to save.
TEST_F(Crash, ASignalDuringTheStartEndsIt) {
  std::string shards;
  for (int i = 0; i < 4; ++i) {
    // Sparse files of 4 GiB: no disk, but seconds of reading.
    const fs::path file = micro_->directory() / fmt::format("sparse{}.bin", i);
    const std::int32_t header[]{20240520, 1, std::numeric_limits<std::int32_t>::max()};
    std::ofstream(file, std::ios::binary).write(reinterpret_cast<const char*>(header), sizeof header);
    fs::resize_file(file, 1024 + 2 * std::uintmax_t{std::numeric_limits<std::int32_t>::max()});
    shards += fmt::format("{}'{}'", i == 0 ? "" : ", ", file.string());
  }
  const pid_t child = micro_->start("starting", {"data.train=[" + shards + "]"});
  while (!ended(child) && (threads_open_to(child, SIGTERM).first != 1 || threads_open_to(child, SIGTERM).second < 2))
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  ::kill(child, SIGTERM);
  const MicroRun::Finished finished = micro_->wait(child, "starting");
  EXPECT_EQ(finished.status, 128 + SIGTERM) << finished.err;
  EXPECT_NE(finished.err.find("stopped by signal 15 before the first step"), std::string::npos) << finished.err;
  EXPECT_FALSE(fs::exists(micro_->dir("starting")));
}

TEST_F(Crash, NoSignalInterruptsAThreadThatComputes) {
  // A handler's stack frame on a thread inside a oneDNN product would overwrite its operands (train/run/signals.h).
  const pid_t child = micro_->start("blocked", {"train.steps=100000"});
  while (!ended(child) && !fs::exists(micro_->dir("blocked") / "checkpoints" / "step-00000002")) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  for (int signal : {SIGTERM, SIGINT}) {
    const auto [open, all] = threads_open_to(child, signal);
    EXPECT_EQ(open, 1) << "only the thread that waits for it";
    EXPECT_GT(all, 1);
  }
  ::kill(child, SIGKILL);
  micro_->wait(child, "blocked");
}

TEST_F(Crash, ASecondProcessIsRefused) {
  const RunLock lock(micro_->dir("locked"));
  expect_one_line(micro_->execute("locked"), "another process is training in this directory");
}

TEST_F(Crash, AFullDiskDamagesNoCheckpoint) {
  if (testing::thread_sanitizer)
    GTEST_SKIP() << "ThreadSanitizer maps a file of its own at the start, which a limit on file sizes cuts";
  const auto limit = [](rlim_t bytes) {
    return [bytes] {
      std::signal(SIGXFSZ, SIG_IGN);  // writes beyond the limit fail with EFBIG instead
      const rlimit value{bytes, bytes};
      ::setrlimit(RLIMIT_FSIZE, &value);
    };
  };
  // A model whose checkpoint is larger than its record.
  std::vector<std::string> settings = kLonger;
  for (const char* override : {"model.intermediate_size=1024", "train.steps=20", "routing.sequences=1"}) {
    settings.emplace_back(override);
  }
  ASSERT_EQ(micro_->execute("roomy", settings).status, 0);
  struct Stop {};
  std::vector<std::string> at_once = settings;
  at_once.emplace_back("checkpoint.async=off");
  EXPECT_THROW(micro_->train("full", at_once, [](std::int64_t at) { return at == 7 ? throw Stop() : 0; }), Stop);
  const fs::path dir = micro_->dir("full"), checkpoints = dir / "checkpoints";
  const auto record = fs::file_size(micro_->dir("roomy") / "routing.h5");
  const auto state = fs::file_size(checkpoints / "step-00000005" / "train_state.safetensors");
  ASSERT_LT(record, state);
  const std::vector<std::string> names = testing::checkpoint_names(dir);
  // First no room for the record, which a resumed run writes anew, nor for a checkpoint; then room for the record only.
  const std::vector<std::pair<rlim_t, std::string>> limits{{4096, "routing.h5"},
                                                           {state - 1, "train_state.safetensors"}};
  for (const auto& [bytes, file] : limits) {
    const MicroRun::Finished finished = micro_->execute("full", settings, limit(bytes));
    expect_one_line(finished, "routescope-train: error: " + dir.string());
    EXPECT_NE(finished.err.find(file), std::string::npos) << finished.err;
    EXPECT_EQ(testing::checkpoint_names(dir), names) << "limit " << bytes;
    for (const std::string& name : names) EXPECT_NO_THROW(data::verify_manifest(checkpoints / name));
    EXPECT_EQ(reading_error(dir / "routing.h5"), "");
  }
  EXPECT_EQ(micro_->execute("full", settings).status, 0);
  testing::expect_same_run(dir, micro_->dir("roomy"));
}

TEST_F(Crash, ADirectoryThatCannotBeMadeIsAnError) {
  data::write_text_atomically(micro_->directory() / "file", "in the way\n");
  const std::string dir = (micro_->directory() / "file" / "run").string();
  expect_one_line(micro_->execute("unwritable", {"run.dir=" + dir}), "run.dir: " + dir + ": cannot be made");
}

TEST_F(Crash, ALossOfNanStopsTheRunAndKeepsItsCheckpoints) {
  const MicroRun::Finished finished =
      micro_->execute("diverged", {"train.optimizer.learning_rate=1e38", "train.grad_clip=0"});
  expect_one_line(finished, "expected finite numbers");
  const auto checkpoints = data::list_checkpoints(micro_->dir("diverged"));
  ASSERT_FALSE(checkpoints.empty());
  for (const data::CheckpointEntry& checkpoint : checkpoints) EXPECT_NO_THROW(data::verify_manifest(checkpoint.dir));
}

TEST_F(Crash, WrongUsageAndPlan) {
  const MicroRun::Finished usage = micro_->execute("usage", {"train.stps=3"});
  EXPECT_EQ(usage.status, 2);
  EXPECT_NE(usage.err.find("the nearest known one is train.steps"), std::string::npos);
  const MicroRun::Finished plan = micro_->execute("planned", {"--plan"});
  EXPECT_EQ(plan.status, 0) << plan.err;
  for (const char* words : {"parameters", "optimizer state", "activations", "workspace", "total", "step time"}) {
    EXPECT_NE(plan.out.find(words), std::string::npos) << words;
  }
  EXPECT_FALSE(fs::exists(micro_->dir("planned")));
}

}  // namespace
}  // namespace routescope::train
