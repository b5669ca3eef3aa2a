// Runs on a file system without locks, as Lustre and NFS may be mounted: every error that flock() gives there, by a
// preloaded library.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <thread>

#include "data/base/manifest.h"
#include "data/records/routing_view.h"
#include "tests/places.h"
#include "tests/train/run/micro_run.h"

namespace routescope::train {
namespace {

namespace fs = std::filesystem;
using testing::MicroRun;

class NoLocks : public ::testing::TestWithParam<int> {
 protected:
  std::function<void()> without_locks() const {
    return [reason = GetParam()] {
      const char* before = std::getenv("LD_PRELOAD");
      const std::string library = testing::bin_dir() + "/libno_locks.so";
      ::setenv("LD_PRELOAD", (before ? std::string(before) + ":" + library : library).c_str(), 1);
      ::setenv("ROUTESCOPE_TEST_FLOCK_ERRNO", std::to_string(reason).c_str(), 1);
    };
  }
  /// False if the process ended before. It stays to be waited for.
  bool wait_for_a_checkpoint(pid_t child, const std::string& run) const {
    while (data::list_checkpoints(micro_.dir(run)).empty()) {
      siginfo_t info{};
      if (::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == child)
        return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }
  MicroRun micro_;
};

TEST_P(NoLocks, ARunTrainsStopsAndResumesAndASecondIsRefused) {
  ASSERT_EQ(micro_.execute("whole", {}).status, 0);
  const std::vector<std::string> longer = {"train.steps=100000", "train.schedule.kind=constant"};
  const pid_t child = micro_.start("long", longer, without_locks());
  ASSERT_TRUE(wait_for_a_checkpoint(child, "long"));
  EXPECT_TRUE(fs::exists(micro_.dir("long") / "leases" / "1"));
  // Another process, in the same place; its own output has another name.
  fs::create_directory_symlink(micro_.dir("long"), micro_.dir("again"));
  const MicroRun::Finished second = micro_.execute("again", longer, without_locks());
  EXPECT_EQ(second.status, 1);
  EXPECT_NE(second.err.find("process " + std::to_string(child) + ") is training in this directory"), std::string::npos)
      << second.err;
  // One that has locks sees the lease too.
  EXPECT_EQ(micro_.execute("again", longer).status, 1);
  ::kill(child, SIGKILL);
  const MicroRun::Finished killed = micro_.wait(child, "long");
  EXPECT_EQ(killed.status, -SIGKILL);
  EXPECT_NE((killed.out + killed.err).find("this file system has no locks"), std::string::npos) << killed.err;

  // Of the killed process the lease is taken at once.
  const pid_t stopped = micro_.start("short", {"train.steps=12"}, without_locks());
  wait_for_a_checkpoint(stopped, "short");  // it may be over already
  ::kill(stopped, SIGKILL);
  micro_.wait(stopped, "short");
  const MicroRun::Finished resumed = micro_.execute("short", {"train.steps=12"}, without_locks());
  ASSERT_EQ(resumed.status, 0) << resumed.err;
  EXPECT_TRUE(fs::exists(micro_.dir("short") / "leases" / "2"));
  testing::expect_same_run(micro_.dir("short"), micro_.dir("whole"));
}

INSTANTIATE_TEST_SUITE_P(Errors, NoLocks, ::testing::Values(ENOSYS, ENOLCK, EOPNOTSUPP));

}  // namespace
}  // namespace routescope::train
