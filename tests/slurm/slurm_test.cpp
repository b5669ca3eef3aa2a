// scripts/slurm/train.sbatch under a real Slurm, which cluster.sh starts together with this program. Whatever happens
// to a job, its run ends in the bits of an undisturbed run. Jobs that must not be requeued are not.
#include <gtest/gtest.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "data/base/files.h"
#include "data/records/routing_view.h"
#include "tests/places.h"
#include "tests/train/run/micro_run.h"

namespace routescope::testing {
namespace {

namespace fs = std::filesystem;

/// Two nodes, two ranks on each.
constexpr const char* kRanks = "--nodes=2 --ntasks-per-node=2";
/// The least duration of a run: enough to wait for its first checkpoints and disturb it, three times.
constexpr double kRunSeconds = 3;

/// The output of `command`; expects that its status is 0.
std::string output_of(const std::string& command) {
  FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  if (!pipe) throw std::runtime_error("popen failed");
  std::string output;
  for (char buffer[4096]; const std::size_t count = ::fread(buffer, 1, sizeof buffer, pipe);) {
    output.append(buffer, count);
  }
  EXPECT_EQ(::pclose(pipe), 0) << command << "\n" << output;
  while (output.ends_with('\n')) output.pop_back();
  return output;
}

bool wait_until(const std::function<bool()>& holds, double seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!holds()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return true;
}

std::size_t count_of(const std::string& words, const std::string& text) {
  std::size_t count = 0;
  for (std::size_t at = text.find(words); at != std::string::npos; at = text.find(words, at + 1)) ++count;
  return count;
}

class Job {
 public:
  /// `arguments`: sbatch's options, the script and its arguments.
  Job(fs::path log, const std::string& arguments) : log_file_(std::move(log)) {
    id_ = output_of("sbatch --parsable --output=" + log_file_.string() + " " + arguments);
  }

  const std::string& id() const { return id_; }
  std::string log() const { return fs::exists(log_file_) ? data::read_text(log_file_) : ""; }
  /// A field of `scontrol show job`: "JobState", "Restarts", "ExitCode", ...
  std::string field(const std::string& name) const {
    const std::string text = " " + output_of("scontrol --oneliner show job " + id_) + " ";
    const std::size_t begin = text.find(" " + name + "=");
    if (begin == std::string::npos) return "";
    const std::size_t value = begin + name.size() + 2;
    return text.substr(value, text.find(' ', value) - value);
  }
  /// Waits for a state, or until the job has ended in another one.
  bool wait_for_state(const std::string& state, double seconds = 60) const {
    std::string found;
    wait_until([&] { return (found = field("JobState")) == state || is_end(found); }, seconds);
    return found == state;
  }
  bool ended() const { return is_end(field("JobState")); }
  static bool is_end(const std::string& state) {
    return state == "COMPLETED" || state == "FAILED" || state == "CANCELLED" || state == "TIMEOUT" ||
           state == "NODE_FAIL" || state == "OUT_OF_MEMORY";
  }
  /// The process of rank `rank`, or 0 if there is none.
  pid_t process(int rank) const {
    const std::string program = testing::bin_dir() + "/routescope-train";
    for (const auto& entry : fs::directory_iterator("/proc")) {
      const std::string name = entry.path().filename().string();
      std::error_code error;
      if (name.find_first_not_of("0123456789") != std::string::npos) continue;
      if (fs::read_symlink(entry.path() / "exe", error) != program || error) continue;
      std::ifstream file(entry.path() / "environ", std::ios::binary);
      std::string environment(std::istreambuf_iterator<char>(file), {});
      environment.insert(environment.begin(), '\0');
      using namespace std::string_literals;
      if (environment.find("\0SLURM_JOB_ID="s + id_ + "\0"s) != std::string::npos &&
          environment.find("\0SLURM_PROCID="s + std::to_string(rank) + "\0"s) != std::string::npos) {
        return static_cast<pid_t>(std::stol(name));
      }
    }
    return 0;
  }

 private:
  fs::path log_file_;
  std::string id_;
};

class Slurm : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!std::getenv("ROUTESCOPE_CLUSTER")) return;
    ::setenv("ROUTESCOPE_TRAIN", (testing::bin_dir() + "/routescope-train").c_str(), 1);
    ::setenv("OMP_WAIT_POLICY", "passive", 1);
    micro_ = std::make_unique<MicroRun>();
    // This job fails while the first test runs, on a node that the test does not use.
    const fs::path program = micro_->dir("broken.sh");
    data::write_text_atomically(
        program, "case \"$*\" in\n  *--get*) echo " + micro_->dir("broken").string() + " ;;\n  *) exit 75 ;;\nesac\n");
    broken_ = std::make_unique<Job>(submit("broken",
                                           "--ntasks=1 --nodelist=node3 --export=ALL,ROUTESCOPE_REQUEUES=1,"
                                           "ROUTESCOPE_TRAIN='bash " +
                                               program.string() + "'"));
  }
  static void TearDownTestSuite() {
    broken_.reset();
    micro_.reset();
  }
  void SetUp() override {
    ASSERT_TRUE(micro_) << "no cluster, expected to be run as: tests/slurm/cluster.sh test_slurm";
  }
  /// Frees the nodes if a test has failed.
  void TearDown() override {
    if (micro_) output_of("scancel --user=root --nodelist=node1,node2");
  }

  static Job submit(const std::string& run, const std::string& options, const std::string& overrides = "") {
    return {micro_->dir(run).string() + ".log",
            options + " " + testing::source_dir() + "/scripts/slurm/train.sbatch " + micro_->config_file().string() +
                " train.micro_batch=1 run.dir=" + micro_->dir(run).string() + " " + overrides};
  }
  /// Waits for a finished run.
  static void expect_finished(const Job& job, int restarts) {
    ASSERT_TRUE(job.wait_for_state("COMPLETED")) << job.field("JobState") << "\n" << job.log();
    EXPECT_EQ(job.field("ExitCode"), "0:0");
    EXPECT_EQ(job.field("Restarts"), std::to_string(restarts)) << job.log();
    EXPECT_EQ(count_of("the run is finished", job.log()), 1u) << job.log();
  }

  static std::unique_ptr<MicroRun> micro_;
  static std::unique_ptr<Job> broken_;
};

std::unique_ptr<MicroRun> Slurm::micro_;
std::unique_ptr<Job> Slurm::broken_;

TEST_F(Slurm, APreemptedSignalledAndKilledRunEndsInTheBitsOfAnUndisturbedOne) {
  // As many steps as this machine does in kRunSeconds at its fastest.
  const Job trial = submit("trial", kRanks, "train.steps=40 checkpoint.log_spaced_until=0 routing.log_spaced_until=0");
  expect_finished(trial, 0);
  const std::vector<data::TrainRow> rows = data::RoutingRecordView::load(micro_->dir("trial") / "routing.h5").train;
  ASSERT_EQ(rows.size(), 40u);
  const double seconds = std::ranges::min_element(rows, {}, &data::TrainRow::seconds)->seconds;
  const auto steps = static_cast<std::int64_t>(kRunSeconds / seconds);
  const std::string length = "train.steps=" + std::to_string(steps) +
                             " checkpoint.every=20 checkpoint.keep=3 checkpoint.log_spaced_until=0 valid.every=100"
                             " routing.log_spaced_until=0 routing.every=100 routing.per_token_every=0";

  const Job undisturbed = submit("undisturbed", kRanks, length);
  const Job disturbed = submit("disturbed", kRanks, length);
  expect_finished(undisturbed, 0);

  // Before each disturbance wait until the current start has written a new checkpoint: only a resumed run gets that
  // far.
  const auto after_a_checkpoint = [&](int start) {
    const std::string begin = "start " + std::to_string(start) + " on";
    std::string first, newest;
    const auto moved = [&] {
      if (disturbed.log().find(begin) == std::string::npos || disturbed.process(3) == 0) return false;
      const fs::path dir = micro_->dir("disturbed");
      const auto names = fs::exists(dir / "checkpoints") ? checkpoint_names(dir) : std::vector<std::string>();
      newest = names.empty() ? "" : names.back();
      if (first.empty()) first = newest.empty() ? "none" : newest;
      return newest.starts_with("step-") && newest != first;
    };
    wait_until([&] { return moved() || disturbed.ended(); }, 60);
    ASSERT_FALSE(disturbed.ended()) << disturbed.log();
    ASSERT_NE(newest, first) << disturbed.log();
  };
  after_a_checkpoint(1);
  const Job urgent(micro_->dir("urgent").string() + ".log",
                   "--partition=high --nodelist=node1 --ntasks=2 --wrap='sleep 1'");
  ASSERT_TRUE(urgent.wait_for_state("COMPLETED")) << urgent.log();
  EXPECT_EQ(count_of("status 138, newest checkpoint step-", disturbed.log()), 1u) << disturbed.log();
  after_a_checkpoint(2);
  output_of("scancel --signal=USR1 " + disturbed.id());
  ASSERT_TRUE(disturbed.wait_for_state("PENDING")) << disturbed.log();
  EXPECT_EQ(count_of("status 138, newest checkpoint step-", disturbed.log()), 2u) << disturbed.log();
  after_a_checkpoint(3);
  ASSERT_EQ(::kill(disturbed.process(2), SIGKILL), 0);
  expect_finished(disturbed, 3);
  EXPECT_EQ(count_of("status 137, newest checkpoint step-", disturbed.log()), 1u) << disturbed.log();
  expect_same_run(micro_->dir("disturbed"), micro_->dir("undisturbed"));
}

TEST_F(Slurm, ACancelledJobIsNotRequeued) {
  const Job job = submit("cancelled", kRanks, "train.steps=1000000 checkpoint.every=20");
  const fs::path checkpoint = micro_->dir("cancelled") / "checkpoints" / "step-00000020";
  wait_until([&] { return fs::exists(checkpoint) || job.ended(); }, 60);
  ASSERT_FALSE(job.ended()) << job.log();
  output_of("scancel " + job.id());
  // Until its last process has ended, the state of a cancelled job is COMPLETING.
  ASSERT_TRUE(wait_until([&] { return output_of("squeue --noheader --jobs=" + job.id()).empty(); }, 30)) << job.log();
  EXPECT_EQ(job.field("JobState"), "CANCELLED");
  EXPECT_EQ(job.log().find("requeued"), std::string::npos) << job.log();
}

TEST_F(Slurm, AWrongConfigurationIsReportedOnceAndNotRequeued) {
  const Job job = submit("wrong", kRanks, "train.stps=3");
  ASSERT_TRUE(job.wait_for_state("FAILED")) << job.field("JobState");
  EXPECT_EQ(job.field("ExitCode"), "2:0");
  EXPECT_EQ(count_of("the nearest known one is train.steps", job.log()), 1u) << job.log();
}

TEST_F(Slurm, AJobThatLosesARankAtEveryStartGivesUp) {
  const Job& job = *broken_;
  ASSERT_TRUE(job.wait_for_state("FAILED")) << job.field("JobState") << "\n" << job.log();
  EXPECT_EQ(job.field("ExitCode"), "75:0");
  EXPECT_EQ(job.field("Restarts"), "1");
  EXPECT_EQ(count_of("status 75, and 1 requeues in a row brought no checkpoint after none", job.log()), 1u)
      << job.log();
}

}  // namespace
}  // namespace routescope::testing
