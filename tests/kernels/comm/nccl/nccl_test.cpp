// Ranks over NCCL, on stand-ins for NCCL and for CUDA's runtime: the same sums as everywhere, and the rules of NCCL's
// guide.
#include "kernels/comm/nccl/nccl.h"

#include <gtest/gtest.h>

#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>

#include "kernels/device.h"
#include "kernels/memory.h"
#include "tests/kernels/comm/conformance.h"
#include "tests/kernels/comm/nccl/fake_cuda.h"
#include "tests/kernels/comm/nccl/fake_nccl.h"
#include "tests/kernels/comm/nccl/thread_host.h"

namespace routescope::testing {
namespace {

using kernels::Communicator;
using kernels::Device;
using kernels::DType;
using kernels::OwnedTensor;
using kernels::Stream;

const std::vector<std::string> none;
/// Seconds after which a rank is overdue where it never comes. A thread of a loaded machine may be late by a second.
constexpr double patience = 4;

class NcclConformance : public ::testing::TestWithParam<std::size_t> {};

TEST_P(NcclConformance, OnTheStandIn) {
  start_fake_nccl();
  const ConformanceCase& one = conformance_cases()[GetParam()];
  for (const int size : {2, 3}) {
    SCOPED_TRACE(size);
    run_nccl_ranks(size, 60, [&](Communicator& communicator) {
      one.run({.communicator = communicator, .device = Device::cuda, .sums_in_rank_order = false});
    });
  }
  EXPECT_EQ(broken_rules(), none);
}

INSTANTIATE_TEST_SUITE_P(Cases, NcclConformance, ::testing::Range(std::size_t{0}, conformance_cases().size()),
                         [](const auto& one) { return conformance_cases()[one.param].name; });

/// Gradients and parameters of a step, a few buckets at a time.
void steps(Communicator& communicator, int count) {
  const Stream stream{.device = Device::cuda};
  const OwnedTensor whole(DType::f32, Device::cuda, {communicator.size() * 100});
  const kernels::Tensor piece = whole.tensor.slice(communicator.rank() * 100, {100});
  for (int i = 0; i < count; ++i) {
    communicator.wait(communicator.reduce_scatter(piece, whole.tensor, stream, "gradients"), stream);
    communicator.wait(communicator.all_gather(whole.tensor, piece, stream, "parameters"), stream);
  }
  kernels::synchronize(stream);
  communicator.quiesce(60);
}

TEST(Nccl, IsOperatedByOneThreadAtATimeAndStartsNone) {
  start_fake_nccl({.call_time = std::chrono::milliseconds(3)});
  run_nccl_ranks(2, 60, [](Communicator& communicator) { steps(communicator, 40); });
  EXPECT_EQ(broken_rules(), none);
  EXPECT_EQ(nccl_threads(), 0);
  EXPECT_EQ(nccl_aborts(), 0);
}

TEST(Nccl, TakesItsMemoryAtTheStart) {
  start_fake_nccl();
  run_nccl_ranks(2, 60, [](Communicator& communicator) {
    const std::size_t free = kernels::device_info().free_bytes;
    {
      const Stream stream{.device = Device::cuda};
      for (const std::int64_t count : {1, 100, 10'000, 3'000'000}) {
        const OwnedTensor whole(DType::bf16, Device::cuda, {communicator.size() * count});
        const kernels::Tensor piece = whole.tensor.slice(communicator.rank() * count, {count});
        communicator.wait(communicator.reduce_scatter(piece, whole.tensor, stream, "gradients"), stream);
        communicator.wait(communicator.all_gather(whole.tensor, piece, stream, "parameters"), stream);
        kernels::synchronize(stream);
      }
    }
    EXPECT_EQ(kernels::device_info().free_bytes, free);
    EXPECT_LT(free, kernels::device_info().total_bytes);  // the stand-in does take some
  });
}

TEST(NcclEnds, WhenARankDoesNotComeToACollective) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(run_nccl_ranks(2, patience,
                             [](Communicator& communicator) {
                               if (communicator.rank() == 0) steps(communicator, 1);
                               std::this_thread::sleep_for(std::chrono::hours(1));
                             }),
              ::testing::ExitedWithCode(75), "^rank 0 waits in reduce-scatter \\(gradients\\); 1 aborts\n$");
}

TEST(NcclEnds, WhenARankDoesNotComeToTheStart) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  // NCCL waits inside of its call for the other rank, so that nobody may stop it: the process ends all the same.
  const auto one_of_two = [] {
    set_fake_devices(2);
    auto hosts = thread_hosts(2);
    EndingLane lane(0, [] { return broken_rules().empty() ? "" : "; " + broken_rules()[0]; });
    std::thread other([&] {
      hosts[1]->gather("another device", "CUDA devices");
      hosts[1]->broadcast("", "CUDA devices");
      hosts[1]->broadcast("", "NCCL's unique id");
      std::this_thread::sleep_for(std::chrono::hours(1));
    });
    kernels::nccl_communicator(std::move(hosts[0]), &lane, {.timeout_seconds = patience, .advice = ""});
  };
  EXPECT_EXIT(one_of_two(), ::testing::ExitedWithCode(75), "^rank 0 waits in the start of NCCL\n$");
}

TEST(NcclEnds, WhenTheNetworkFails) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(run_nccl_ranks(2, 60,
                             [](Communicator& communicator) {
                               if (communicator.rank() == 0) {
                                 break_fake_network();
                                 steps(communicator, 1);
                               }
                               std::this_thread::sleep_for(std::chrono::hours(1));
                             }),
              ::testing::ExitedWithCode(75), "^reduce-scatter \\(gradients\\): unhandled system error; 1 aborts\n$");
}

TEST(NcclEnds, WhenAKernelBeforeACollectiveFailed) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(run_nccl_ranks(2, 60,
                             [](Communicator& communicator) {
                               if (communicator.rank() == 1) {
                                 break_fake_device(1);
                                 steps(communicator, 1);
                               }
                               std::this_thread::sleep_for(std::chrono::hours(1));
                             }),
              ::testing::ExitedWithCode(1),
              "^rank 1: CUDA: reduce-scatter \\(gradients\\): an illegal memory access was encountered; 1 aborts\n$");
}

/// The watching thread goes on beside the unwinding, and finds what it uses (AddressSanitizer looks).
TEST(NcclEnds, AfterAnExceptionOfOneRank) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(run_nccl_ranks(2, patience,
                             [](Communicator& communicator) {
                               steps(communicator, 1);
                               if (communicator.rank() == 1) std::this_thread::sleep_for(std::chrono::hours(1));
                               const Stream stream{.device = Device::cuda};
                               static const OwnedTensor whole(DType::f32, Device::cuda, {200});
                               communicator.reduce_scatter(whole.tensor.slice(0, {100}), whole.tensor, stream, "g");
                               throw std::runtime_error("an error of this rank");
                             }),
              ::testing::ExitedWithCode(75), "^rank 0 waits in reduce-scatter \\(g\\); 1 aborts\n$");
}

// ---- The stand-in itself ----

ncclComm_t fake_communicator(int rank, int size, const ncclUniqueId& id, int blocking) {
  ncclComm_t comm = nullptr;
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = blocking;
  ncclCommInitRankConfig(&comm, size, id, rank, &config);
  return comm;
}

TEST(FakeNccl, SeesTwoThreadsInOneCommunicator) {
  start_fake_nccl({.call_time = std::chrono::milliseconds(20)});
  ncclUniqueId id{};
  ncclGetUniqueId(&id);
  ncclComm_t comm = fake_communicator(0, 1, id, 1);
  EXPECT_EQ(broken_rules(), none);
  // On a loaded machine two calls may miss each other.
  for (int i = 0; i < 1000 && broken_rules().empty(); ++i) {
    ncclResult_t first = ncclSuccess, second = ncclSuccess;
    std::thread other([&] { ncclCommGetAsyncError(comm, &first); });
    ncclCommGetAsyncError(comm, &second);
    other.join();
  }
  ASSERT_FALSE(broken_rules().empty());
  EXPECT_EQ(broken_rules()[0], "ncclCommGetAsyncError while another thread is in ncclCommGetAsyncError");
}

TEST(FakeNccl, SeesWhatIsUsedAfterItWasFreed) {
  start_fake_nccl();
  ncclUniqueId id{};
  ncclGetUniqueId(&id);
  ncclComm_t comm = fake_communicator(0, 1, id, 1);
  ncclCommDestroy(comm);
  ncclResult_t status = ncclSuccess;
  ncclCommGetAsyncError(comm, &status);
  ASSERT_EQ(broken_rules().size(), 1U);
  EXPECT_EQ(broken_rules()[0], "ncclCommGetAsyncError after the communicator was freed");
}

TEST(FakeNccl, SeesAnotherOrderOfCollectives) {
  start_fake_nccl();
  set_fake_devices(2);
  ncclUniqueId id{};
  ncclGetUniqueId(&id);
  std::vector<float> data(200);
  ncclComm_t first = nullptr, second = nullptr;
  std::thread other([&] { second = fake_communicator(1, 2, id, 1); });
  first = fake_communicator(0, 2, id, 1);
  other.join();
  std::thread gathers([&] {
    cudaSetDevice(1);
    ncclAllGather(data.data() + 100, data.data(), 100, ncclFloat32, second, nullptr);
  });
  ncclAllGather(data.data(), data.data(), 50, ncclFloat32, first, nullptr);
  gathers.join();
  for (int i = 0; i < 5000 && broken_rules().empty(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  ASSERT_EQ(broken_rules().size(), 1U);
  EXPECT_NE(broken_rules()[0].find("while another rank is in ncclAllGather of "), std::string::npos);
  ncclCommAbort(first);
  ncclCommAbort(second);
  for (const int device : {1, 0}) {
    cudaSetDevice(device);
    cudaStreamSynchronize(nullptr);
  }
}

TEST(FakeNccl, StartsThreadsWhereACommunicatorDoesNotBlock) {
  start_fake_nccl();
  ncclUniqueId id{};
  ncclGetUniqueId(&id);
  ncclComm_t comm = fake_communicator(0, 1, id, 0);
  for (ncclResult_t status = ncclInProgress; status == ncclInProgress;) ncclCommGetAsyncError(comm, &status);
  EXPECT_EQ(nccl_threads(), 1);
  EXPECT_EQ(broken_rules(), none);
}

}  // namespace
}  // namespace routescope::testing
