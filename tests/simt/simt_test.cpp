// The emulator's vocabulary for threads: places, shuffles, votes and barriers do what CUDA's programming guide says, in
// every order of threads.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <numeric>
#include <set>

#include "kernels/cuda/parts/reduce.h"
#include "kernels/cuda/parts/vec.h"
#include "tests/simt/device_array.h"

namespace simt {
namespace {

using routescope::kernels::bf16;
using routescope::kernels::cuda::kFullMask;
using routescope::kernels::cuda::shared_memory;

constexpr std::uint64_t kSeeds = 20;

/// Prints the order of threads with every failure.
class SeedPrinter : public ::testing::EmptyTestEventListener {
  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (result.failed())
      std::fprintf(stderr, "emulated device: ROUTESCOPE_SIMT_SEED=%llu\n", static_cast<unsigned long long>(seed()));
  }
};
[[maybe_unused]] const bool listening = [] {
  ::testing::UnitTest::GetInstance()->listeners().Append(new SeedPrinter);
  return true;
}();

int global_index() {
  return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}

// ---- where a thread is ----------------------------------------------------------------------------------------------

__global__ void count_visits(int* visits) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  ++visits[block * blockDim.x + threadIdx.x];
}

TEST(Simt, EveryThreadOfEveryBlockRunsOnce) {
  DeviceArray<int> visits(2 * 3 * 4 * 96);
  routescope::kernels::cuda::launch("count_visits", count_visits, {dim3(2, 3, 4), 96}, routescope::kernels::Stream{},
                                    visits.data());
  for (const int visited : visits.host()) EXPECT_EQ(visited, 1);
}

TEST(Simt, ABlockMayHaveThreeAxes) {
  std::set<std::array<unsigned, 3>> seen;
  launch("axes", dim3(1), dim3(3, 4, 5), 0, nullptr, [&] {
    __syncthreads();
    seen.insert({threadIdx.x, threadIdx.y, threadIdx.z});
    EXPECT_LT(threadIdx.x, 3u);
    EXPECT_LT(threadIdx.y, 4u);
    EXPECT_LT(threadIdx.z, 5u);
  });
  EXPECT_EQ(seen.size(), 60u);
}

TEST(Simt, NoBlocksMeanNoLaunch) {
  DeviceArray<int> visits(1, 7);
  run_kernel(count_visits, 0, 32, 0, visits.data());
  EXPECT_EQ(visits.host()[0], 7);
}

// ---- shuffles -------------------------------------------------------------------------------------------------------

template <class T>
__global__ void shuffle_all(T* direct, T* up, T* down, T* across, const T* in, int argument, int width) {
  const int i = global_index();
  direct[i] = __shfl_sync(routescope::kernels::cuda::kFullMask, in[i], argument, width);
  up[i] = __shfl_up_sync(routescope::kernels::cuda::kFullMask, in[i], static_cast<unsigned>(argument), width);
  down[i] = __shfl_down_sync(routescope::kernels::cuda::kFullMask, in[i], static_cast<unsigned>(argument), width);
  across[i] = __shfl_xor_sync(routescope::kernels::cuda::kFullMask, in[i], argument, width);
}

template <class T>
class Shuffles : public ::testing::Test {};
using Exchanged = ::testing::Types<float, double, int, unsigned, long long, unsigned long long>;
TYPED_TEST_SUITE(Shuffles, Exchanged);

/// Against the table of the programming guide: up and down keep their own value at a segment's edge, xor where the
/// partner lies in a later segment; a direct source counts modulo the width.
TYPED_TEST(Shuffles, OfAllKindsWidthsAndDistances) {
  constexpr int kThreads = 64;
  std::vector<TypeParam> in(kThreads);
  for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<TypeParam>(1000 + 7 * i);
  const DeviceArray<TypeParam> from(in), direct(kThreads), up(kThreads), down(kThreads), across(kThreads);
  for (const int width : {1, 2, 4, 8, 16, 32}) {
    for (int argument = 0; argument < 32; ++argument) {
      run_kernel(shuffle_all<TypeParam>, 1, kThreads, 0, direct.data(), up.data(), down.data(), across.data(),
                 from.data(), argument, width);
      const auto d = direct.host(), u = up.host(), n = down.host(), x = across.host();
      for (std::size_t i = 0; i < kThreads; ++i) {
        const int lane = static_cast<int>(i % 32), place = lane % width;
        const auto at = [&](int other) {
          return in[i - static_cast<std::size_t>(lane) + static_cast<std::size_t>(other)];
        };
        ASSERT_EQ(d[i], at(lane - place + argument % width)) << "width " << width << " from " << argument;
        ASSERT_EQ(u[i], place < argument ? in[i] : at(lane - argument)) << "width " << width << " up " << argument;
        ASSERT_EQ(n[i], place + argument >= width ? in[i] : at(lane + argument))
            << "width " << width << " down " << argument;
        const int partner = lane ^ argument;
        ASSERT_EQ(x[i], partner / width > lane / width ? in[i] : at(partner))
            << "width " << width << " xor " << argument;
      }
    }
  }
}

__global__ void shuffle_in_parts(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  // Two parts of the warp take different branches and exchange among themselves, a different number of times.
  if (lane % 3 == 0) {
    unsigned mask = 0;
    for (int i = 0; i < 32; i += 3) mask |= 1u << i;
    for (int i = 0; i < 4; ++i) out[lane] = __shfl_sync(mask, lane + i, 3 * i);
  } else {
    unsigned mask = 0;
    for (int i = 0; i < 32; ++i)
      if (i % 3 != 0) mask |= 1u << i;
    out[lane] = __shfl_sync(mask, 100 + lane, 31);
  }
}

TEST(Simt, PartsOfAWarpExchangeAmongThemselves) {
  const DeviceArray<int> out(32);
  for (std::uint64_t s = 0; s < kSeeds; ++s) {
    const Seeded seeded(s);
    run_kernel(shuffle_in_parts, 1, 32, 0, out.data());
    const auto got = out.host();
    for (std::size_t i = 0; i < 32; ++i) ASSERT_EQ(got[i], i % 3 == 0 ? 12 : 131);
  }
}

__global__ void reduce_sums(float* out, const float* in) {
  struct Shared {
    routescope::kernels::cuda::BlockShared<float> sum;
  };
  auto& shared = shared_memory<Shared>();
  for (int i = 0; i < 3; ++i) {
    const float sum = routescope::kernels::cuda::block_sum(in[global_index()] + static_cast<float>(i), shared.sum);
    const float largest = routescope::kernels::cuda::block_max(in[global_index()] + static_cast<float>(i), shared.sum);
    if (threadIdx.x == 0) out[3 * blockIdx.x + static_cast<unsigned>(i)] = sum + largest;
  }
}

TEST(Simt, ReductionsOfABlock) {
  constexpr std::size_t kBlocks = 3, kThreads = 192;
  std::vector<float> in(kBlocks * kThreads);
  for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i % 97);
  const DeviceArray<float> from(in), out(3 * kBlocks);
  for (std::uint64_t s = 0; s < kSeeds; ++s) {
    const Seeded seeded(s);
    run_kernel(reduce_sums, kBlocks, kThreads, sizeof(routescope::kernels::cuda::BlockShared<float>), out.data(),
               from.data());
    const auto got = out.host();
    for (std::size_t b = 0; b < kBlocks; ++b) {
      const auto begin = in.begin() + static_cast<std::ptrdiff_t>(b * kThreads), end = begin + kThreads;
      const float sum = std::accumulate(begin, end, 0.0f), largest = *std::max_element(begin, end);
      for (std::size_t i = 0; i < 3; ++i)
        ASSERT_EQ(got[3 * b + i], sum + largest + static_cast<float>((kThreads + 1) * i));  // small integers: exact
    }
  }
}

// ---- votes and gathering --------------------------------------------------------------------------------------------

__global__ void vote(unsigned* ballots, int* any, int* all, unsigned predicate_bits) {
  const unsigned lane = threadIdx.x % 32;
  const int predicate = static_cast<int>(predicate_bits >> lane & 1u) * 5;  // any number but 0 is yes
  ballots[threadIdx.x] = __ballot_sync(kFullMask, predicate);
  any[threadIdx.x] = __any_sync(kFullMask, predicate);
  all[threadIdx.x] = __all_sync(kFullMask, predicate);
}

TEST(Simt, Votes) {
  const DeviceArray<unsigned> ballots(64);
  const DeviceArray<int> any(64), all(64);
  for (const unsigned bits : {0u, 1u, 0x80000000u, 0x00ff10f3u, 0xfffffffeu, kFullMask}) {
    run_kernel(vote, 1, 64, 0, ballots.data(), any.data(), all.data(), bits);
    for (const unsigned got : ballots.host()) EXPECT_EQ(got, bits);
    for (const int got : any.host()) EXPECT_EQ(got, bits != 0 ? 1 : 0);
    for (const int got : all.host()) EXPECT_EQ(got, bits == kFullMask ? 1 : 0);
  }
}

struct Fragment {
  std::array<int, 7> value;
};
__global__ void gather_sums(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  int sum = 0;
  // Lanes run ahead by one meeting at most; what they brought to the former one must not change under the others.
  for (int round = 0; round < 5; ++round) {
    Fragment mine;
    mine.value.fill(lane * (round + 1));
    for (const Fragment& other : gather(kFullMask, mine, "test")) sum += other.value[6];
  }
  const unsigned upper = 0xffff0000u;
  if (lane >= 16)
    for (const Fragment& other : gather(upper, Fragment{{1, 1, 1, 1, 1, 1, 1}}, "test of a half"))
      sum += other.value[0];
  out[lane] = sum;
}

TEST(Simt, GatherGivesEveryLaneTheValuesOfAll) {
  const DeviceArray<int> out(32);
  for (std::uint64_t s = 0; s < kSeeds; ++s) {
    const Seeded seeded(s);
    run_kernel(gather_sums, 1, 32, 0, out.data());
    const auto got = out.host();
    for (std::size_t i = 0; i < 32; ++i) ASSERT_EQ(got[i], 496 * 15 + (i >= 16 ? 16 : 0));
  }
}

// ---- shared memory and barriers -------------------------------------------------------------------------------------

struct Ring {
  int slot[128];
};
__global__ void pass_on(int* out, int rounds) {
  auto& ring = shared_memory<Ring>();
  const unsigned i = threadIdx.x;
  int value = static_cast<int>(i);
  for (int r = 0; r < rounds; ++r) {
    ring.slot[i] = value;
    __syncthreads();
    value = ring.slot[(i + 1) % blockDim.x];
    __syncthreads();
  }
  out[i] = value;
}

TEST(Simt, BarriersOrderSharedMemory) {
  const DeviceArray<int> out(128);
  for (std::uint64_t s = 0; s < kSeeds; ++s) {
    const Seeded seeded(s);
    run_kernel(pass_on, 1, 128, sizeof(Ring), out.data(), 5);
    const auto got = out.host();
    for (std::size_t i = 0; i < 128; ++i) ASSERT_EQ(got[i], static_cast<int>((i + 5) % 128));
  }
}

__global__ void look_then_write(unsigned* found) {
  auto& ring = shared_memory<Ring>();
  found[global_index()] = static_cast<unsigned>(ring.slot[threadIdx.x]);
  ring.slot[threadIdx.x] = 5;
}

TEST(Simt, ABlockFindsGarbageInSharedMemory) {
  const DeviceArray<unsigned> found(4 * 128);
  run_kernel(look_then_write, 4, 128, sizeof(Ring), found.data());
  for (const unsigned word : found.host()) EXPECT_EQ(word, 0xffffffffu);
}

// ---- speed ----------------------------------------------------------------------------------------------------------

__global__ void wait_eight_times() {
  for (int i = 0; i < 8; ++i) __syncthreads();
}

double processor_seconds() {
  return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
}

/// The whole suite has to run in minutes: a block of 256 threads may cost a millisecond, which is several times what it
/// takes (README.md has the figures).
TEST(Simt, TurnsAreCheap) {
  constexpr unsigned kBlocks = 500;
  const DeviceArray<int> visits(kBlocks * 256);
  const DeviceArray<float> in(kBlocks * 256, 1.0f), sums(3 * kBlocks);
  const auto microseconds = [&](const char* what, auto&& run) {
    run();
    const double begin = processor_seconds();
    run();
    const double each = (processor_seconds() - begin) / kBlocks * 1e6;
    std::printf("%s: %.0f us a block of 256 threads\n", what, each);
    return each;
  };
  EXPECT_LT(microseconds("nothing to wait for", [&] { run_kernel(count_visits, kBlocks, 256, 0, visits.data()); }),
            1000);
  EXPECT_LT(microseconds("8 barriers", [&] { run_kernel(wait_eight_times, kBlocks, 256, 0); }), 1000);
  EXPECT_LT(microseconds("6 sums and maxima of the block",
                         [&] {
                           run_kernel(reduce_sums, kBlocks, 256, sizeof(routescope::kernels::cuda::BlockShared<float>),
                                      sums.data(), in.data());
                         }) /
                6,
            1000);
}

}  // namespace
}  // namespace simt
