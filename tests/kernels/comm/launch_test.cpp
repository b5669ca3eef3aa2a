// Where a process is, by its launcher's environment; and what a machine knows of its processes.
#include "kernels/comm/launch.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <map>
#include <thread>

#include "kernels/comm/peer.h"
#include "tests/kernels/comm/conformance.h"

namespace routescope::kernels {
namespace {

/// An environment of these launcher's variables and no others, until the end of the test.
class LaunchedPlace : public ::testing::Test {
 protected:
  ~LaunchedPlace() override {
    for (const auto& [name, value] : before_) {
      if (value) {
        ::setenv(name.c_str(), value->c_str(), 1);
      } else {
        ::unsetenv(name.c_str());
      }
    }
  }
  void set(const std::map<std::string, std::string>& variables) {
    for (const char* name :
         {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "PMI_SIZE", "PMI_RANK",
          "MPI_LOCALRANKID", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "PMIX_RANK"}) {
      const char* value = std::getenv(name);
      before_.emplace(name, value ? std::optional<std::string>(value) : std::nullopt);
      ::unsetenv(name);
    }
    for (const auto& [name, value] : variables) ::setenv(name.c_str(), value.c_str(), 1);
  }
  static void expect_place(int rank, int size, int local_rank) {
    const Place place = launched_place();
    EXPECT_EQ(place.rank, rank);
    EXPECT_EQ(place.size, size);
    EXPECT_EQ(place.local_rank, local_rank);
  }

 private:
  std::map<std::string, std::optional<std::string>> before_;
};

TEST_F(LaunchedPlace, OfEveryLauncher) {
  set({});
  expect_place(0, 1, 0);
  set({{"OMPI_COMM_WORLD_SIZE", "8"}, {"OMPI_COMM_WORLD_RANK", "5"}, {"OMPI_COMM_WORLD_LOCAL_RANK", "1"}});
  expect_place(5, 8, 1);
  set({{"PMI_SIZE", "4"}, {"PMI_RANK", "3"}, {"MPI_LOCALRANKID", "2"}});
  expect_place(3, 4, 2);
  set({{"SLURM_STEP_NUM_TASKS", "6"}, {"SLURM_PROCID", "4"}, {"SLURM_LOCALID", "1"}, {"SLURM_NTASKS", "6"}});
  expect_place(4, 6, 1);
}

TEST_F(LaunchedPlace, ABatchScriptIsAlone) {
  set({{"SLURM_NTASKS", "6"}, {"SLURM_PROCID", "0"}, {"SLURM_LOCALID", "0"}});
  expect_place(0, 1, 0);
}

TEST_F(LaunchedPlace, AnMpirunInsideAJobOfSlurmCounts) {
  set({{"OMPI_COMM_WORLD_SIZE", "4"},
       {"OMPI_COMM_WORLD_RANK", "2"},
       {"SLURM_STEP_NUM_TASKS", "2"},
       {"SLURM_PROCID", "1"}});
  expect_place(2, 4, 0);
}

TEST_F(LaunchedPlace, NonsenseIsRefused) {
  set({{"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_RANK", "4"}});
  EXPECT_THROW(launched_place(), std::runtime_error);
  set({{"OMPI_COMM_WORLD_SIZE", "four"}, {"OMPI_COMM_WORLD_RANK", "1"}});
  EXPECT_THROW(launched_place(), std::runtime_error);
}

TEST_F(LaunchedPlace, SrunWithoutAProcessManagerIsSaid) {
  set({{"SLURM_STEP_NUM_TASKS", "2"}, {"SLURM_PROCID", "0"}, {"SLURM_LOCALID", "0"}});
  try {
    start_communicator(Device::cpu);
    FAIL() << "expected an error";
  } catch (const std::runtime_error& error) {
    const std::string expected =
        mpi_built() ? "srun --mpi=pmix" : "2 processes started together, expected 1: this build has no MPI";
    EXPECT_NE(std::string(error.what()).find(expected), std::string::npos) << error.what();
  }
}

TEST(Peer, StateOfAProcess) {
  int pipe[2];
  ASSERT_EQ(::pipe(pipe), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const Peer self = this_peer();
    if (::write(pipe[1], &self, sizeof self) != sizeof self) ::_exit(1);
    for (;;) ::pause();
  }
  Peer peer;
  ASSERT_EQ(::read(pipe[0], &peer, sizeof peer), static_cast<ssize_t>(sizeof peer));
  const Peer self = this_peer();
  EXPECT_EQ(peer.process, child);
  EXPECT_EQ(state_of(peer, self), PeerState::running);
  Peer later = peer, elsewhere = peer;
  later.started += 1;
  EXPECT_EQ(state_of(later, self), PeerState::gone) << "a number that another process has now";
  elsewhere.host[0] = '\1';
  EXPECT_EQ(state_of(elsewhere, self), PeerState::unknown);
  int status = 0;
  ::kill(child, SIGSTOP);
  ::waitpid(child, &status, WUNTRACED);
  EXPECT_EQ(state_of(peer, self), PeerState::stopped);
  ::kill(child, SIGKILL);
  siginfo_t info{};
  ::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT);
  EXPECT_EQ(state_of(peer, self), PeerState::gone) << "not waited for yet";
  ::waitpid(child, &status, 0);
  EXPECT_EQ(state_of(peer, self), PeerState::gone);
  ::close(pipe[0]);
  ::close(pipe[1]);
}

TEST(Staging, IsBoundedAndNoMoreThanNeeded) {
  const std::size_t mib = std::size_t{1} << 20;
  EXPECT_EQ(communicator_staging_bytes(1, 64 * mib), 0u);
  EXPECT_EQ(communicator_staging_bytes(4, 4 * mib), 3 * mib);
  EXPECT_LE(communicator_staging_bytes(4, 64 * mib), 16 * mib);
  EXPECT_GT(communicator_staging_bytes(4, 64 * mib), 15 * mib);
}

class Alone : public ::testing::TestWithParam<testing::ConformanceCase> {};
TEST_P(Alone, Conforms) {
  const std::unique_ptr<Communicator> communicator = single_communicator();
  GetParam().run({*communicator, Device::cpu, true});
}
INSTANTIATE_TEST_SUITE_P(Communicator, Alone, ::testing::ValuesIn(testing::conformance_cases()),
                         [](const auto& param) { return param.param.name; });

}  // namespace
}  // namespace routescope::kernels
