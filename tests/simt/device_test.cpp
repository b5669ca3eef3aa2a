// The emulated device as the host sees it: memory that only kernels and copies reach, recording, and what it refuses.
// And the rules of meetings, whose breach ends a launch with a message that says who waits for whom.
#include "kernels/device.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>

#include "kernels/cuda/driver.h"
#include "kernels/memory.h"
#include "tests/simt/device_array.h"
#include "tests/simt/emulator/device_memory.h"

namespace simt {
namespace {

namespace driver = routescope::kernels::cuda::driver;
using routescope::kernels::OwnedStream;
using routescope::kernels::RecordedWork;
using routescope::kernels::Stream;
using routescope::kernels::cuda::kFullMask;
using routescope::kernels::cuda::shared_memory;

__global__ void add_one(int* at) {
  at[threadIdx.x] += 1;
}
__global__ void write_at(int* at, int index) {
  at[index] = 1;
}

// ---- memory ---------------------------------------------------------------------------------------------------------

TEST(SimtDevice, IsThere) {
  EXPECT_TRUE(driver::available());
  const auto info = driver::info();
  EXPECT_EQ(info.capability, 90);
  EXPECT_EQ(info.multiprocessors, 132);
  const DeviceArray<char> kept(1000);
  EXPECT_EQ(driver::info().free_bytes, info.free_bytes - 1000);
  EXPECT_TRUE(mentions(error_of([&] { driver::allocate(info.total_bytes); }), {"allocating", "out of memory"}));
}

TEST(SimtDevice, MemoryIsZeroedAndAligned) {
  for (const std::size_t bytes : {1, 7, 4096, 100000}) {
    const std::unique_ptr<void, void (*)(void*)> data(driver::allocate(bytes), driver::release);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(data.get()) % 256, 0u);
    std::vector<char> host(bytes, 1);
    driver::copy(host.data(), data.get(), bytes, nullptr);
    EXPECT_EQ(std::count(host.begin(), host.end(), 0), static_cast<std::ptrdiff_t>(bytes));
  }
}

TEST(SimtDeviceDeathTest, TheHostDiesWhenItFollowsADevicePointer) {
  const DeviceArray<int> data(100, 3);
  run_kernel(add_one, 1, 100, 0, data.data());
  EXPECT_DEATH(std::printf("%d", *static_cast<volatile int*>(data.data())), "SEGV");
  EXPECT_DEATH(*static_cast<volatile int*>(data.data() + 99) = 1, "SEGV");
  EXPECT_EQ(data.host()[99], 4);
}

TEST(SimtDeviceDeathTest, AKernelDiesOneByteBesideAnAllocation) {
  const auto write_byte = [](char* at) { launch("write_byte", dim3(1), dim3(1), 0, nullptr, [=] { *at = 1; }); };
  for (const std::size_t bytes : {1, 13, 4096, 4099}) {
    const DeviceArray<char> data(bytes);
    write_byte(data.data() + bytes - 1);
    EXPECT_DEATH(write_byte(data.data() + bytes), "use-after-poison");
    EXPECT_DEATH(write_byte(data.data() - 1), "use-after-poison");
  }
}

TEST(SimtDeviceDeathTest, ADeathInAKernelSaysWhereAndInWhichOrder) {
  const DeviceArray<int> data(100);
  EXPECT_DEATH(run_kernel(write_at, 1, 1, 0, data.data(), 100),
               "in kernel of_a_test, block \\(0, 0, 0\\), thread 0; ROUTESCOPE_SIMT_SEED=");
}

TEST(SimtDeviceDeathTest, ReleasedMemoryIsGone) {
  int* data = static_cast<int*>(driver::allocate(4000));
  driver::release(data);
  EXPECT_DEATH(run_kernel(write_at, 1, 1, 0, data, 5), "SEGV");
  EXPECT_DEATH(driver::release(data), "not \\(or no longer\\) allocated");
  int on_host = 0;
  EXPECT_DEATH(driver::release(&on_host), "not \\(or no longer\\) allocated");
  EXPECT_TRUE(mentions(error_of([&] { driver::copy(&on_host, data, 4, nullptr); }), {"released", "invalid argument"}));
}

TEST(SimtDeviceDeathTest, MemoryNeverReleasedFailsTheProcess) {
  EXPECT_EXIT(
      {
        driver::allocate(10);
        std::exit(0);
      },
      ::testing::ExitedWithCode(1), "1 allocations \\(10 bytes\\) were never released");
}

TEST(SimtDevice, CopiesStayWithinAllocations) {
  const DeviceArray<int> data(10, 5);
  std::vector<int> host(20);
  driver::copy(host.data(), data.data() + 3, 7 * sizeof(int), nullptr);
  EXPECT_EQ(host[6], 5);
  EXPECT_TRUE(mentions(error_of([&] { driver::copy(host.data(), data.data() + 3, 8 * sizeof(int), nullptr); }),
                       {"copying from device memory", "32 bytes from byte 12 of an allocation of 40 bytes"}));
  EXPECT_TRUE(mentions(error_of([&] { driver::copy(data.data() - 1, host.data(), sizeof(int), nullptr); }),
                       {"copying to device memory", "invalid argument"}));
  const DeviceArray<int> other(10);
  driver::copy(other.data(), data.data(), data.bytes(), nullptr);
  EXPECT_EQ(other.host(), data.host());
}

// ---- streams, recording, time ---------------------------------------------------------------------------------------

TEST(SimtDevice, RecordedWorkRunsWhenItIsReplayed) {
  const OwnedStream owned(routescope::kernels::Device::cuda);
  const Stream stream{routescope::kernels::Device::cuda, owned.handle()};
  const DeviceArray<int> data(2, 10);
  std::vector<int> given{100, 200}, seen(2);
  const RecordedWork work(stream, [&] {
    driver::copy(data.data(), given.data(), 2 * sizeof(int), stream.handle);
    routescope::kernels::cuda::launch("add_one", add_one, {dim3(1), 2}, stream, data.data());
    driver::copy(seen.data(), data.data(), 2 * sizeof(int), stream.handle);
  });
  EXPECT_EQ(data.host(), (std::vector<int>{10, 10}));
  work.replay(stream);
  EXPECT_EQ(seen, (std::vector<int>{101, 201}));
  given = {7, 8};  // read again at each replay
  work.replay(stream);
  EXPECT_EQ(seen, (std::vector<int>{8, 9}));
  routescope::kernels::cuda::launch("add_one", add_one, {dim3(1), 2}, stream,
                                    data.data());  // the stream runs at once again
  EXPECT_EQ(data.host(), (std::vector<int>{9, 10}));
}

TEST(SimtDevice, RefusesWhatCannotBeRecorded) {
  const OwnedStream owned(routescope::kernels::Device::cuda), other(routescope::kernels::Device::cuda);
  const Stream stream{routescope::kernels::Device::cuda, owned.handle()};
  const DeviceArray<int> data(1);
  const auto recording = [&](const std::function<void()>& body) {
    return error_of([&] { RecordedWork(stream, body); });
  };
  const char* refused = "not permitted when stream is capturing";
  EXPECT_TRUE(mentions(recording([] { driver::allocate(4); }), {"allocating", refused}));
  EXPECT_TRUE(mentions(recording([] { driver::allocate_pinned(4); }), {"pinning", refused}));
  EXPECT_TRUE(mentions(recording([&] { driver::synchronize(owned.handle()); }), {"waiting", refused}));
  EXPECT_TRUE(mentions(recording([&] { run_kernel(add_one, 1, 1, 0, data.data()); }), {"of_a_test", refused}));
  EXPECT_TRUE(mentions(recording([&] { driver::begin_recording(other.handle()); }), {"capturing already"}));
  // What threw is remembered though the body hid it, and so is what has no way to throw.
  EXPECT_TRUE(mentions(recording([&] { error_of([] { driver::allocate(4); }); }), {"previous error", "allocating"}));
  int* released = static_cast<int*>(driver::allocate(4));
  EXPECT_TRUE(mentions(recording([&] { driver::release(released); }), {"previous error", "releasing"}));
  EXPECT_TRUE(mentions(error_of([] { driver::begin_recording(nullptr); }), {"default (legacy) stream"}));
  EXPECT_TRUE(mentions(error_of([&] { driver::end_recording(owned.handle()); }), {"not capturing"}));
  EXPECT_EQ(recording([&] {
              routescope::kernels::cuda::launch("add_one", add_one, {dim3(1), 1}, stream, data.data());
            }),
            "");
  // Another stream's work is its own.
  EXPECT_EQ(recording([&] {
              routescope::kernels::cuda::launch("add_one", add_one, {dim3(1), 1},
                                                {routescope::kernels::Device::cuda, other.handle()}, data.data());
            }),
            "");
  EXPECT_EQ(data.host()[0], 1);
}

TEST(SimtDevice, HandlesHaveToBeKnown) {
  int nothing = 0;
  EXPECT_TRUE(mentions(error_of([&] { driver::synchronize(&nothing); }), {"invalid resource handle"}));
  EXPECT_TRUE(mentions(error_of([&] { driver::replay(&nothing, nullptr); }), {"invalid resource handle"}));
  EXPECT_TRUE(mentions(error_of([&] { driver::record_event(&nothing, nullptr); }), {"invalid resource handle"}));
}

TEST(SimtDevice, EventsGiveTime) {
  const Stream stream{routescope::kernels::Device::cuda};
  routescope::kernels::StreamTimer timer;
  EXPECT_TRUE(mentions(error_of([&] {
                         void* event = driver::create_event();
                         const std::unique_ptr<void, void (*)(void*)> kept(event, driver::destroy_event);
                         driver::seconds_between(event, event);
                       }),
                       {"never recorded"}));
  timer.start(stream);
  const DeviceArray<int> data(256);
  run_kernel(add_one, 1, 256, 0, data.data());
  const double seconds = timer.stop(stream);
  EXPECT_GT(seconds, 0);
  EXPECT_LT(seconds, 60);
}

// ---- pinned memory --------------------------------------------------------------------------------------------------

TEST(SimtDevice, CopiesToPinnedMemoryAreThereAfterAWait) {
  const OwnedStream owned(routescope::kernels::Device::cuda);
  const Stream stream{routescope::kernels::Device::cuda, owned.handle()};
  const DeviceArray<int> data(2, 5), other(2, 6);
  const routescope::kernels::PinnedBuffer buffer(4 * sizeof(int));
  auto* host = static_cast<int*>(buffer.data());
  driver::copy(host, data.data(), data.bytes(), owned.handle());
  routescope::kernels::StreamEvent copied;
  copied.record(stream);
  driver::copy(host + 2, other.data(), other.bytes(), owned.handle());
  EXPECT_EQ(host[0], -1);
  copied.wait();
  EXPECT_EQ(host[1], 5);
  EXPECT_EQ(host[2], -1);
  driver::copy(other.data(), host + 2, sizeof(int), owned.handle());  // in order: reads what the former copy wrote
  EXPECT_EQ(other.host()[0], 6);
  driver::synchronize(owned.handle());
  EXPECT_EQ(host[3], 6);
}

TEST(SimtDevice, PinnedMemoryMayChangeAfterAWait) {
  const OwnedStream owned(routescope::kernels::Device::cuda), elsewhere(routescope::kernels::Device::cuda);
  const DeviceArray<int> data(2);
  const routescope::kernels::PinnedBuffer buffer(2 * sizeof(int));
  auto* host = static_cast<int*>(buffer.data());
  host[0] = host[1] = 1;
  driver::copy(data.data(), host, data.bytes(), owned.handle());
  driver::synchronize(owned.handle());
  host[0] = 2;
  driver::copy(data.data(), host, data.bytes(), owned.handle());
  driver::synchronize(elsewhere.handle());  // the wait for something else
  host[0] = 3;
  EXPECT_TRUE(mentions(error_of([&] { driver::synchronize(owned.handle()); }), {"pinned memory was changed"}));
  EXPECT_EQ(error_of([&] { driver::synchronize(owned.handle()); }), "");
}

// ---- launches that are refused --------------------------------------------------------------------------------------

struct Small {
  int word[16];
};
__global__ void take_small() {
  shared_memory<Small>().word[threadIdx.x % 16] = 0;
}

TEST(SimtDevice, RefusesLaunchesAsCudaDoes) {
  const auto refusal = [](dim3 grid, dim3 block, std::size_t shared_bytes) {
    return error_of([&] { launch("refused", grid, block, shared_bytes, nullptr, [] {}); });
  };
  EXPECT_EQ(refusal(dim3(1), dim3(1024), 232448), "");
  EXPECT_TRUE(mentions(refusal(dim3(1), dim3(1025), 0), {"kernel refused", "invalid configuration"}));
  EXPECT_TRUE(mentions(refusal(dim3(1), dim3(0), 0), {"invalid configuration"}));
  EXPECT_TRUE(mentions(refusal(dim3(1), dim3(1, 1, 65), 0), {"invalid configuration"}));
  EXPECT_TRUE(mentions(refusal(dim3(1, 65536), dim3(1), 0), {"invalid configuration"}));
  EXPECT_TRUE(mentions(refusal(dim3(0), dim3(1), 0), {"invalid configuration"}));
  EXPECT_TRUE(mentions(refusal(dim3(1), dim3(1), 232449), {"shared memory"}));
}

TEST(SimtDevice, AKernelCannotTakeMoreSharedMemoryThanTheLaunchGives) {
  run_kernel(take_small, 2, 32, sizeof(Small));
  EXPECT_TRUE(mentions(error_of([] { run_kernel(take_small, 2, 32, sizeof(Small) - 1); }),
                       {"takes 64 bytes of shared memory", "63"}));
}

// ---- meetings that cannot take place --------------------------------------------------------------------------------

/// Counts the frames of a kernel that were not taken down.
struct Frame {
  static inline int alive = 0;
  Frame() { ++alive; }
  ~Frame() { --alive; }
  Frame(const Frame&) = delete;
  Frame& operator=(const Frame&) = delete;
};

std::string error_of_block(int threads, const std::function<void(unsigned)>& body) {
  const std::string error = error_of([&] {
    launch("broken", dim3(1), dim3(static_cast<unsigned>(threads)), 0, nullptr, [&] {
      const Frame frame;
      body(threadIdx.x);
    });
  });
  EXPECT_EQ(Frame::alive, 0);
  // The emulator serves the next launch as if nothing had been.
  const DeviceArray<int> data(64);
  run_kernel(add_one, 1, 64, 0, data.data());
  EXPECT_EQ(data.host(), std::vector<int>(64, 1));
  return error;
}

TEST(SimtMeetings, AThreadThatLeavesCannotBeMet) {
  EXPECT_TRUE(mentions(error_of_block(40,
                                      [](unsigned t) {
                                        if (t != 7) __syncthreads();
                                      }),
                       {"kernel broken, block (0, 0, 0)", "thread 7 left the kernel",
                        "threads 0-6, 8-39 wait at __syncthreads of device_test.cpp:", "seed"}));
  EXPECT_TRUE(mentions(
      error_of_block(64,
                     [](unsigned t) {
                       if (t / 32 == 0 || t % 32 < 5) __shfl_xor_sync(kFullMask, 1, 1);
                     }),
      {"threads 0-31, 37-63 left the kernel",
       "threads 32-36 wait at __shfl_xor_sync of device_test.cpp:", "with mask 0xffffffff for threads 37-63"}));
  EXPECT_TRUE(mentions(error_of_block(16, [](unsigned) { __syncwarp(); }), {"for threads 16-31"}));
}

TEST(SimtMeetings, WhoeverWaitsElsewhereCannotBeMet) {
  const std::string stuck = error_of_block(64, [](unsigned t) {
    if (t < 32)
      __syncthreads();
    else if (t == 40)
      __syncwarp(1u << 8 | 1u << 9);
    else
      __ballot_sync(routescope::kernels::cuda::kFullMask & ~(1u << 8 | 1u << 9), 1);
  });
  EXPECT_TRUE(mentions(stuck, {"threads 0-31 wait at __syncthreads", "thread 41 left the kernel",
                               "thread 40 waits at __syncwarp", "with mask 0x00000300 for thread 41"}) ||
              mentions(stuck, {"thread 41", "__ballot_sync"}));
}

TEST(SimtMeetings, ABarrierInTwoBranchesIsTwoBarriers) {
  // Not inside a macro's argument, all of which counts as one line.
  const std::string error = error_of_block(64, [](unsigned t) {
    if (t < 20)
      __syncthreads();
    else
      __syncthreads();
  });
  EXPECT_TRUE(
      mentions(error, {"kernel broken", "reached __syncthreads of device_test.cpp:", "while another thread waits"}));
}

TEST(SimtMeetings, LanesAgreeOnMaskAndKind) {
  EXPECT_TRUE(mentions(error_of_block(32, [](unsigned) { __shfl_sync(0x0000ffffu, 1, 0); }),
                       {"calls __shfl_sync", "mask 0x0000ffff", "does not name it"}));
  EXPECT_TRUE(mentions(error_of_block(32, [](unsigned t) { __syncwarp(t < 16 ? kFullMask : 0xffff8000u); }),
                       {"reached __syncwarp", "waits at __syncwarp", "0xffffffff", "0xffff8000"}));
  EXPECT_TRUE(mentions(error_of_block(32,
                                      [](unsigned t) {
                                        if (t < 16)
                                          __shfl_up_sync(kFullMask, 1, 1);
                                        else
                                          __shfl_down_sync(kFullMask, 1, 1);
                                      }),
                       {"__shfl_up_sync", "__shfl_down_sync", "waits at"}));
  EXPECT_TRUE(mentions(error_of_block(32,
                                      [](unsigned t) {
                                        if (t < 16)
                                          __shfl_up_sync(kFullMask, 1, 1);
                                        else
                                          __shfl_up_sync(kFullMask, 1.0, 1);
                                      }),
                       {"values of another size"}));
}

TEST(SimtMeetings, AShuffleReadsOnlyFromLanesOfItsMask) {
  EXPECT_TRUE(mentions(error_of_block(32,
                                      [](unsigned t) {
                                        if (t < 8) __shfl_xor_sync(0xffu, 1, 8);
                                      }),
                       {"__shfl_xor_sync reads from lane", "which the mask does not name"}));
  EXPECT_TRUE(mentions(error_of_block(32, [](unsigned) { __shfl_sync(kFullMask, 1, 0, 12); }), {"a width of 12"}));
}

TEST(SimtMeetings, AnExceptionInAKernelEndsTheLaunch) {
  EXPECT_TRUE(mentions(error_of_block(64,
                                      [](unsigned t) {
                                        __syncthreads();
                                        if (t == 33) throw std::runtime_error("thirty-three");
                                        __syncthreads();
                                      }),
                       {"kernel broken, block (0, 0, 0), thread 33: thirty-three"}));
  EXPECT_TRUE(mentions(error_of_block(1, [](unsigned) { throw 5; }), {"unknown type"}));
}

TEST(SimtMeetings, OnlyKernelsMeet) {
  EXPECT_TRUE(mentions(error_of([] { __syncthreads(); }), {"outside of a kernel"}));
  EXPECT_TRUE(mentions(error_of_block(1, [](unsigned) { launch("inner", dim3(1), dim3(1), 0, nullptr, [] {}); }),
                       {"started from inside kernel broken"}));
}

}  // namespace
}  // namespace simt
