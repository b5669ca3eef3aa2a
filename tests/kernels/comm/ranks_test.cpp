// Jobs of several processes under mpirun: the conformance cases over MPI, and what ranks do about one that is lost.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <ostream>
#include <sstream>

#include "kernels/comm/communicator.h"
#include "tests/kernels/comm/job.h"
#include "tests/places.h"

namespace routescope::kernels {
namespace {

namespace fs = std::filesystem;
using testing::Job;
using testing::run_ranks;

const std::string kProgram = testing::bin_dir() + "/test_comm_ranks";

class RanksTest : public ::testing::Test {
 protected:
  RanksTest() {
    std::string name = (fs::temp_directory_path() / "routescope-ranks-XXXXXX").string();
    if (!::mkdtemp(name.data())) throw std::runtime_error("no temporary directory");
    dir_ = name;
  }
  ~RanksTest() override { fs::remove_all(dir_); }

  Job suffer(const std::string& fault, int victim, int ranks, bool each = false, double timeout = 1) const {
    return testing::run_ranks(
        ranks, {kProgram, "--timeout", std::to_string(timeout), "--dir", dir_, fault, std::to_string(victim)}, dir_, 60,
        each);
  }
  std::string process(int rank) const {
    std::string number;
    std::ifstream(fs::path(dir_) / ("process." + std::to_string(rank))) >> number;
    return number;
  }
  /// Lines of the program's own on standard error (mpirun adds its).
  static std::vector<std::string> said(const Job& job) {
    std::vector<std::string> lines;
    std::istringstream text(job.err);
    for (std::string line; std::getline(text, line);) {
      if (line.rfind("test_comm_ranks: ", 0) == 0) lines.push_back(line);
    }
    return lines;
  }
  static void expect_said(const Job& job, const std::vector<std::string>& words) {
    const std::vector<std::string> lines = said(job);
    ASSERT_EQ(lines.size(), 1u) << job.err;
    for (const std::string& word : words) EXPECT_NE(lines[0].find(word), std::string::npos) << word << "\n" << lines[0];
  }

  std::string dir_;
};

struct Shape {
  int ranks;
  std::vector<std::string> arguments;
  friend std::ostream& operator<<(std::ostream& out, const Shape& shape) { return out << shape.ranks << " ranks"; }
};
class Conformance : public RanksTest, public ::testing::WithParamInterface<Shape> {};

TEST_P(Conformance, OverMpi) {
  std::vector<std::string> command{kProgram, "--gtest_color=no"};
  command.insert(command.end(), GetParam().arguments.begin(), GetParam().arguments.end());
  const Job job = testing::run_ranks(GetParam().ranks, command, dir_, 120);
  EXPECT_EQ(job.status, 0) << job.err << job.out;
  EXPECT_NE(job.out.find("[  PASSED  ] 9 tests."), std::string::npos) << job.out;
}

std::string shape_name(const ::testing::TestParamInfo<Shape>& info) {
  return std::to_string(info.param.ranks) + (info.param.arguments.empty() ? "" : "InChunks");
}

// The last shape sends everything in many small messages, as sizes above MPI's largest count do.
INSTANTIATE_TEST_SUITE_P(Ranks, Conformance,
                         ::testing::Values(Shape{1, {}}, Shape{2, {}}, Shape{3, {}}, Shape{4, {}},
                                           Shape{3, {"--staging", "100000", "--message", "10007"}}),
                         shape_name);

TEST_F(RanksTest, ARankThatComputesForLongIsWaitedFor) {
  const Job job = suffer("late", 1, 2, false, 5);
  EXPECT_EQ(job.status, 0) << job.err;
  EXPECT_EQ(job.err.find("error:"), std::string::npos) << job.err;
}

TEST_F(RanksTest, AStoppedRankIsNamed) {
  const Job job = suffer("stopped", 1, 3);
  EXPECT_EQ(job.status, lost_rank_status) << job.err;
  expect_said(job, {"rank 1 (", ", process " + process(1) + ")", "has not come to all-gather (parameters)", "for 1.0 s",
                    "is stopped", "this is the advice"});
  EXPECT_LT(job.seconds, 15);
}

// The lowest rank usually reports.
TEST_F(RanksTest, AHangingRankIsNamedWithItsLastCollective) {
  const Job job = suffer("hangs", 0, 3);
  EXPECT_EQ(job.status, lost_rank_status) << job.err;
  expect_said(job, {"rank 0 (", ", process " + process(0) + ")", "has not come to all-gather (parameters)",
                    "it answers, so it hangs or computes", "last came to barrier (everyone is here)"});
}

// Long before the timeout: ranks see that a process of their machine has ended.
TEST_F(RanksTest, AKilledRankIsMissedAtOnce) {
  const Job job = suffer("killed", 2, 3, true, 100);
  EXPECT_EQ(job.statuses, (std::vector<int>{lost_rank_status, lost_rank_status, 128 + 9})) << job.err;
  expect_said(job, {"rank 2 (", ", process " + process(2) + ") is dead", "had come to all-reduce (number)"});
  EXPECT_LT(job.seconds, 30);
}

TEST_F(RanksTest, AnErrorOfMpiIsALostRank) {
  const Job job = suffer("unreachable", 2, 3, true, 100);
  EXPECT_EQ(job.statuses, (std::vector<int>{lost_rank_status, lost_rank_status, 128 + 9})) << job.err;
  expect_said(job, {"MPI: all-gather (parameters)", "this is the advice"});
  EXPECT_LT(job.seconds, 30);
}

TEST_F(RanksTest, EveryRankEndsWithItsOwnStatus) {
  const Job job = suffer("hangs", 1, 3, true);
  ASSERT_EQ(job.statuses.size(), 3u);
  for (int status : job.statuses) EXPECT_EQ(status, lost_rank_status) << job.err;
}

TEST_F(RanksTest, ProcessesThatDoNotAllStartSaySo) {
  // The launcher's own status may come from the absent process.
  const Job job = suffer("absent", 1, 2, true);
  EXPECT_EQ(job.statuses, (std::vector<int>{lost_rank_status, 0})) << job.err;
  expect_said(job, {"MPI did not start within 1 s: not all of the 2 processes came"});
}

TEST_F(RanksTest, ARankThatAbandonsTheJobEndsItWithItsLineAndStatus) {
  const Job job = suffer("abandons", 1, 3, true, 100);
  EXPECT_EQ(job.statuses, (std::vector<int>{3, 3, 3})) << job.err;
  expect_said(job, {"test_comm_ranks: error: this rank gives up"});
  EXPECT_LT(job.seconds, 20);
}

TEST_F(RanksTest, AnExceptionOnOneRankEndsAll) {
  const Job job = suffer("throws", 1, 3, true, 100);
  EXPECT_EQ(job.statuses, (std::vector<int>{1, 1, 1})) << job.err;
  expect_said(job, {"test_comm_ranks: error: this rank's own error"});
  EXPECT_LT(job.seconds, 20);
}

TEST_F(RanksTest, AnExceptionWaitsForTensorsThatAreUnderWay) {
  const Job job = suffer("throws amid", 1, 2, true, 100);
  EXPECT_EQ(job.statuses, (std::vector<int>{1, 1})) << job.err;
  expect_said(job, {"test_comm_ranks: error: this rank's own error"});
}

// Several times, because the order of the ranks is random.
TEST_F(RanksTest, WhatAllRanksFindIsToldOnce) {
  for (int i = 0; i < 3; ++i) {
    const Job job = suffer("all abandon", 0, 4, true, 100);
    EXPECT_EQ(job.statuses, (std::vector<int>{4, 4, 4, 4})) << job.err;
    expect_said(job, {"what all ranks found"});
  }
}

TEST_F(RanksTest, AnErrorBeforeRanksMeetIsToldOnce) {
  for (int i = 0; i < 3; ++i) {
    const Job job = testing::run_ranks(4, {kProgram, "--timeout"}, dir_, 60);
    EXPECT_EQ(job.status, 1);
    expect_said(job, {"--timeout: expected a value"});
  }
}

TEST_F(RanksTest, DifferentCollectivesAreNoticed) {
  const Job job = suffer("other", 1, 2, false, 100);
  EXPECT_EQ(job.status, 1);
  expect_said(job, {"not in the same collective", "barrier (another one)", "all-gather (parameters)"});
}

TEST_F(RanksTest, DifferentSizesAreNoticed) {
  const Job job = suffer("other size", 1, 2, false, 100);
  EXPECT_EQ(job.status, 1);
  expect_said(job, {"not in the same collective", "all-reduce (number)", "2 elements", "1 elements"});
}

}  // namespace
}  // namespace routescope::kernels
