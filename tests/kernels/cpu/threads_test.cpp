#include "kernels/cpu/threads.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>

namespace routescope::kernels {
namespace {

namespace fs = std::filesystem;

/// A tree of control groups by hand.
class Groups : public ::testing::Test {
 protected:
  Groups() : root_(fs::path(::testing::TempDir()) / ("groups-" + std::to_string(::getpid()))) {}
  ~Groups() override { fs::remove_all(root_); }
  void write(const std::string& file, const std::string& text) {
    fs::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << text;
  }
  fs::path root_;
};

TEST_F(Groups, TheLeastQuotaAboveCounts) {
  EXPECT_TRUE(std::isinf(quota_of_groups("0::/job/step\n", root_)));
  write("cpu.max", "max 100000\n");
  write("job/cpu.max", "150000 100000\n");
  write("job/step/cpu.max", "max 100000\n");
  EXPECT_EQ(quota_of_groups("0::/job/step\n", root_), 1.5);
  EXPECT_EQ(quota_of_groups("0::/job\n", root_), 1.5);
  EXPECT_TRUE(std::isinf(quota_of_groups("0::/\n", root_)));
  EXPECT_TRUE(std::isinf(quota_of_groups("0::/elsewhere\n", root_)));
  write("job/step/cpu.max", "50000 100000\n");
  EXPECT_EQ(quota_of_groups("0::/job/step\n", root_), 0.5);
}

TEST_F(Groups, InAContainerTheMountedRootIsItsOwn) {
  write("cpu.max", "400000 100000\n");
  EXPECT_EQ(quota_of_groups("0::/\n", root_), 4);
  EXPECT_EQ(quota_of_groups("0::/../../above\n", root_), 4);
}

TEST_F(Groups, VersionOne) {
  const std::string membership = "5:memory:/job\n4:cpu,cpuacct:/job\n3:cpuset:/\n1:name=systemd:/job\n";
  EXPECT_TRUE(std::isinf(quota_of_groups(membership, root_)));
  for (const char* group : {"cpu,cpuacct/", "cpu,cpuacct/job/"}) {
    write(std::string(group) + "cpu.cfs_quota_us", "-1\n");
    write(std::string(group) + "cpu.cfs_period_us", "100000\n");
  }
  EXPECT_TRUE(std::isinf(quota_of_groups(membership, root_)));
  write("cpu,cpuacct/job/cpu.cfs_quota_us", "300000\n");
  EXPECT_EQ(quota_of_groups(membership, root_), 3);
  // The controller's other name, and another controller's files, which say nothing.
  write("memory/job/cpu.cfs_quota_us", "1\n");
  EXPECT_EQ(quota_of_groups(membership, root_), 3);
}

TEST_F(Groups, DamagedFilesSetNoLimit) {
  for (const char* text : {"", "\n", "max", "100000", "0 100000", "100000 0", "-5 100000", "words words"}) {
    write("cpu.max", text);
    EXPECT_TRUE(std::isinf(quota_of_groups("0::/\n", root_))) << text;
  }
  EXPECT_TRUE(std::isinf(quota_of_groups("", root_)));
  EXPECT_TRUE(std::isinf(quota_of_groups("nonsense\n::\n", root_)));
}

}  // namespace
}  // namespace routescope::kernels
