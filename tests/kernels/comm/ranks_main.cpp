// One rank of a job that tests start:
//   test_comm_ranks [--cuda] [--timeout S] [--staging BYTES] [--message BYTES] [--dir DIR] [FAULT VICTIM]
// Without a fault all ranks run the conformance cases. With a fault, rank VICTIM fails as the end of main() describes,
// while the others wait for it. DIR/process.RANK then holds the number of its process.
#include <gtest/gtest.h>
#define OMPI_SKIP_MPICXX 1
#include <mpi.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <ratio>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "kernels/comm/launch.h"
#include "kernels/memory.h"
#include "tests/kernels/comm/conformance.h"

namespace {

/// The rank that MPI reports as lost, as MPICH and UCX do; Open MPI waits instead.
std::atomic<int> unreachable = -1;

}  // namespace

// Replaces MPI's own function. Rank 0 receives nothing any more.
extern "C" int MPI_Testsome(int count, MPI_Request* requests, int* done, int* indices, MPI_Status* statuses) {
  return unreachable >= 0 ? MPI_ERR_OTHER : PMPI_Testsome(count, requests, done, indices, statuses);
}
extern "C" int MPI_Isend(const void* data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm,
                         MPI_Request* request) {
  return unreachable == to ? MPI_ERR_OTHER : PMPI_Isend(data, count, type, to, tag, comm, request);
}
extern "C" int MPI_Test(MPI_Request* request, int* done, MPI_Status* status) {
  const bool deaf = unreachable >= 0 && routescope::kernels::launched_place().rank == 0;
  return deaf ? MPI_ERR_OTHER : PMPI_Test(request, done, status);
}

namespace routescope::kernels {
namespace {

using testing::ConformanceCase;
using testing::Ranks;

/// Prints failures, with the rank; only rank 0 prints the rest.
class RankPrinter : public ::testing::EmptyTestEventListener {
 public:
  explicit RankPrinter(int rank) : rank_(rank) {}
  // GoogleTest cannot be asked for the test while it reports a result.
  void OnTestStart(const ::testing::TestInfo& test) override { test_ = test.name(); }
  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::cerr << "rank " + std::to_string(rank_) + ": " + test_ + ": " + result.message() + "\n";
  }

 private:
  int rank_;
  std::string test_;
};

struct CaseTest : ::testing::Test {
  CaseTest(const ConformanceCase& case_, const Ranks& ranks) : run(case_.run), on(ranks) {}
  void TestBody() override { run(on); }
  std::function<void(const Ranks&)> run;
  Ranks on;
};

int conformance(const Ranks& ranks) {
  for (const ConformanceCase& one : testing::conformance_cases()) {
    ::testing::RegisterTest("Conformance", one.name.c_str(), nullptr, nullptr, __FILE__, __LINE__,
                            [&one, ranks] { return new CaseTest(one, ranks); });
  }
  ::testing::TestEventListeners& listeners = ::testing::UnitTest::GetInstance()->listeners();
  if (ranks.communicator.rank() != 0) delete listeners.Release(listeners.default_result_printer());
  listeners.Append(new RankPrinter(ranks.communicator.rank()));
  double failed = RUN_ALL_TESTS();
  ranks.communicator.all_reduce({&failed, 1}, Reduction::max, "the outcome");
  return failed == 0 ? 0 : 1;
}

void suffer(Communicator& communicator, const std::string& fault) {
  if (fault == "killed" || fault == "unreachable") std::raise(SIGKILL);
  if (fault == "stopped") std::raise(SIGSTOP);
  if (fault == "hangs") std::this_thread::sleep_for(std::chrono::hours(1));
  if (fault == "late") std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  if (fault == "abandons") abandon(3, "test_comm_ranks: error: this rank gives up");
  if (fault == "throws") throw std::runtime_error("this rank's own error");
  if (fault == "other") communicator.barrier("another one");
}

int run(const std::vector<std::string>& arguments) {
  CommunicatorOptions options{.timeout_seconds = 60, .start_seconds = 60, .advice = "this is the advice"};
  Device device = Device::cpu;
  std::string dir, fault;
  int victim = -1;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& name = arguments[i];
    if (name == "--cuda") {
      device = Device::cuda;
      continue;
    }
    if (i + 1 == arguments.size()) throw std::runtime_error(name + ": expected a value");
    const std::string& value = arguments[++i];
    if (name == "--timeout") {
      options.timeout_seconds = std::stod(value);
    } else if (name == "--staging") {
      options.staging_bytes = std::stoul(value);
    } else if (name == "--message") {
      options.message_bytes = std::stoul(value);
    } else if (name == "--dir") {
      dir = value;
    } else {
      fault = name;
      victim = std::stoi(value);
    }
  }
  if (fault == "absent" && launched_place().rank == victim) return 0;
  if (fault == "absent") options.start_seconds = options.timeout_seconds;
  const std::unique_ptr<Communicator> communicator = start_communicator(device, options);
  if (fault.empty()) return conformance({*communicator, device, device == Device::cpu});

  std::ofstream(dir + "/process." + std::to_string(communicator->rank())) << ::getpid() << std::endl;
  std::vector<double> number(fault == "other size" && communicator->rank() == victim ? 2 : 1, 1.0);
  communicator->barrier("everyone is here");
  if (fault == "all abandon") {
    // All of them at the next full tenth of a second.
    using Tenths = std::chrono::duration<std::int64_t, std::deci>;
    std::this_thread::sleep_until(std::chrono::ceil<Tenths>(std::chrono::system_clock::now()));
    abandon(4, "test_comm_ranks: error: what all ranks found");
  }
  if (fault == "throws amid") {
    // Large enough that its memory goes back to the system, while others still read it.
    OwnedTensor large(DType::f32, Device::cpu, {10'000'000 * communicator->size()});
    const QuietUnwinding quiet(*communicator);
    const Communicator::Ticket ticket = communicator->all_gather(
        large.tensor, large.tensor.slice(10'000'000 * communicator->rank(), {10'000'000}), {}, "parameters");
    if (communicator->rank() == victim) throw std::runtime_error("this rank's own error");
    communicator->wait(ticket, {});
    communicator->barrier("everyone has them");
  }
  // A collective on a tensor runs, as in training.
  OwnedTensor whole(DType::f32, Device::cpu, {1000 * communicator->size()});
  if (communicator->rank() == victim) suffer(*communicator, fault);
  if (fault == "unreachable") unreachable = victim;
  const Communicator::Ticket ticket =
      communicator->all_gather(whole.tensor, whole.tensor.slice(1000 * communicator->rank(), {1000}), {}, "parameters");
  communicator->all_reduce(number, Reduction::sum, "number");
  communicator->wait(ticket, {});
  return number[0] == communicator->size() ? 0 : 1;
}

}  // namespace
}  // namespace routescope::kernels

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  try {
    return routescope::kernels::run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    routescope::kernels::abandon(1, std::string("test_comm_ranks: error: ") + error.what());
  }
}
