// The emulator's vocabulary for memory, and its orders: atomics, vectors, asynchronous copies; a seed is an order.
#include <gtest/gtest.h>

#include <algorithm>
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

int global_index() {
  return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}

struct Ring {
  int slot[128];
};

// ---- atomics --------------------------------------------------------------------------------------------------------

__global__ void count_up(unsigned long long* total, unsigned* tickets, int* largest, int* smallest, unsigned* cas,
                         int* last) {
  const int i = global_index();
  atomicAdd(total, 3ull);
  tickets[i] = atomicAdd(&tickets[blockDim.x * gridDim.x], 1u);
  atomicMax(largest, i - 100);
  atomicMin(smallest, i - 100);
  atomicExch(last, i);
  // A lock-free addition, which only works if nobody comes between the comparison and the exchange.
  unsigned seen = *cas;
  for (;;) {
    const unsigned before = atomicCAS(cas, seen, seen + 2);
    if (before == seen) break;
    seen = before;
  }
}

TEST(Simt, Atomics) {
  constexpr unsigned kThreads = 96, kBlocks = 4, kAll = kThreads * kBlocks;
  for (std::uint64_t s = 0; s < kSeeds; ++s) {
    const Seeded seeded(s);
    const DeviceArray<unsigned long long> total(1);
    const DeviceArray<unsigned> tickets(kAll + 1), cas(1);
    const DeviceArray<int> largest(1, -1000), smallest(1, 1000), last(1, -1);
    run_kernel(count_up, kBlocks, kThreads, 0, total.data(), tickets.data(), largest.data(), smallest.data(),
               cas.data(), last.data());
    EXPECT_EQ(total.host()[0], 3ull * kAll);
    auto drawn = tickets.host();
    std::sort(drawn.begin(), drawn.end());
    for (unsigned i = 0; i <= kAll; ++i) ASSERT_EQ(drawn[i], i);
    EXPECT_EQ(largest.host()[0], static_cast<int>(kAll) - 101);
    EXPECT_EQ(smallest.host()[0], -100);
    EXPECT_EQ(cas.host()[0], 2 * kAll);
    EXPECT_GE(last.host()[0], 0);
  }
}

// ---- vectors and bits -----------------------------------------------------------------------------------------------

template <class T>
__global__ void copy_rows(T* out, const T* in, int d, bool aligned) {
  constexpr int kVec = routescope::kernels::cuda::kVec<T>;
  const T* row = in + static_cast<std::int64_t>(blockIdx.x) * d;
  T* to = out + static_cast<std::int64_t>(blockIdx.x) * d;
  for (int begin = static_cast<int>(threadIdx.x) * kVec; begin < d; begin += static_cast<int>(blockDim.x) * kVec)
    routescope::kernels::cuda::store_row(to, begin, d, aligned,
                                         routescope::kernels::cuda::load_row(row, begin, d, aligned));
}

TEST(Simt, RowsOfBf16GoThroughVectorsUnchanged) {
  for (const int d : {8, 64, 7, 33, 1001}) {
    std::vector<bf16> in(static_cast<std::size_t>(3 * d));
    // Every pattern of bits that is no NaN, in turn.
    for (std::size_t i = 0; i < in.size(); ++i) in[i].bits = static_cast<std::uint16_t>((i * 5003) % 0x7f80);
    const DeviceArray<bf16> from(in), to(in.size());
    run_kernel(copy_rows<bf16>, 3, 32, 0, to.data(), from.data(), d,
               routescope::kernels::cuda::rows_aligned(from.data(), d));
    const auto got = to.host();
    for (std::size_t i = 0; i < in.size(); ++i) ASSERT_EQ(got[i].bits, in[i].bits) << "d " << d;
  }
}

TEST(Simt, BitsOfNumbers) {
  EXPECT_EQ(__popc(0xf0f0u), 8);
  EXPECT_EQ(__ffs(0), 0);
  EXPECT_EQ(__ffs(0x50), 5);
  EXPECT_EQ(__clz(0), 32);
  EXPECT_EQ(__clz(1), 31);
  EXPECT_EQ(__float_as_uint(1.0f), 0x3f800000u);
  EXPECT_EQ(__uint_as_float(0xbf800000u), -1.0f);
  EXPECT_EQ(__int_as_float(__float_as_int(-2.5f)), -2.5f);
  EXPECT_EQ(rsqrtf(4.0f), 0.5f);
}

__global__ void load_vector(float* out, const float* in) {
  const auto v = *reinterpret_cast<const float4*>(in);
  *out = v.x + v.w;
}

TEST(SimtDeathTest, AVectorThatIsNotAlignedIsAnError) {
  const DeviceArray<float> in(16, 1.0f), out(1);
  run_kernel(load_vector, 1, 1, 0, out.data(), in.data() + 4);
  EXPECT_EQ(out.host()[0], 2.0f);
  EXPECT_DEATH(run_kernel(load_vector, 1, 1, 0, out.data(), in.data() + 3), "misaligned address");
}

// ---- asynchronous copies --------------------------------------------------------------------------------------------

struct Stages {
  alignas(16) std::uint32_t word[3][4];
};
__global__ void copy_stages(std::uint32_t* found, const std::uint32_t* in) {
  auto& stages = shared_memory<Stages>();
  auto look = [&, next = 0](int stage) mutable { found[next++] = stages.word[stage][3]; };
  for (int s = 0; s < 3; ++s)
    for (int i = 0; i < 4; ++i) stages.word[s][i] = 7;
  for (int s = 0; s < 2; ++s) {
    async_copy(stages.word[s], in + 4 * s, 16);
    async_commit();
  }
  look(0);  // on its way: neither the former nor the new value
  async_wait(1);
  look(0);
  look(1);  // the younger group is still on its way
  async_copy(stages.word[2], in + 8, 16, 12);
  async_wait(0);
  look(1);
  look(2);  // of no group yet: not waited for
  async_commit();
  async_wait(0);
  look(2);  // beyond the valid bytes: zero
  found[6] = stages.word[2][2];
}

TEST(Simt, AsynchronousCopiesArriveWithTheWaitThatCoversThem) {
  std::vector<std::uint32_t> in(12);
  std::iota(in.begin(), in.end(), 100u);
  const DeviceArray<std::uint32_t> from(in), found(7);
  run_kernel(copy_stages, 1, 1, sizeof(Stages), found.data(), from.data());
  constexpr std::uint32_t kGarbage = 0xffffffffu;
  EXPECT_EQ(found.host(), (std::vector<std::uint32_t>{kGarbage, 103, kGarbage, 107, kGarbage, 0, 110}));
}

TEST(Simt, AsynchronousCopiesHaveToBeAligned) {
  const DeviceArray<std::uint32_t> from(8);
  const auto copy_from = [&](std::size_t offset, std::size_t bytes) {
    return error_of([&] {
      launch("copy", dim3(1), dim3(1), 64, nullptr,
             [&] { async_copy(simt::shared_memory(64, 16), from.data() + offset, bytes); });
    });
  };
  EXPECT_EQ(copy_from(4, 16), "");
  EXPECT_TRUE(mentions(copy_from(2, 16), {"kernel copy", "asynchronous copy", "aligned"}));
  EXPECT_TRUE(mentions(copy_from(4, 12), {"4, 8 or 16 bytes"}));
}

// ---- orders ---------------------------------------------------------------------------------------------------------

__global__ void draw_tickets(unsigned* tickets) {
  const auto all = static_cast<std::size_t>(blockDim.x * gridDim.x);
  for (int round = 0; round < 2; ++round) {
    tickets[static_cast<std::size_t>(round) * all + static_cast<std::size_t>(global_index())] = tickets[2 * all]++;
    __syncthreads();
  }
}
std::vector<unsigned> order_of(std::uint64_t with_seed) {
  const Seeded seeded(with_seed);
  const DeviceArray<unsigned> tickets(2 * 128 + 1);
  run_kernel(draw_tickets, 2, 64, 0, tickets.data());
  return tickets.host();
}

TEST(Simt, ASeedIsAnOrderOfBlocksAndThreads) {
  std::set<std::vector<unsigned>> orders;
  std::set<bool> first_block_first;
  for (std::uint64_t s = 0; s < kSeeds; ++s) {
    const auto order = order_of(s);
    EXPECT_EQ(order, order_of(s)) << "seed " << s;
    orders.insert(order);
    first_block_first.insert(order[0] < order[64]);
  }
  EXPECT_GT(orders.size(), kSeeds * 3 / 4);  // the plainest orders, forwards and backwards, come more than once
  EXPECT_EQ(first_block_first.size(), 2u);
}

/// A meeting with oneself is a place to take turns. How far apart do threads get that never wait for each other?
__global__ void run_ahead(int* most_ahead) {
  auto& progress = shared_memory<Ring>();
  const unsigned i = threadIdx.x;
  progress.slot[i] = 0;
  __syncthreads();
  for (int step = 1; step <= 8; ++step) {
    progress.slot[i] = step;
    __syncwarp(1u << (i % 32));
    int slowest = step;
    for (unsigned other = 0; other < blockDim.x; ++other) slowest = min(slowest, progress.slot[other]);
    *most_ahead = max(*most_ahead, step - slowest);
  }
}

TEST(Simt, SomeOrdersLetOneThreadRunFarAheadAndSomeKeepStep) {
  std::set<int> seen;
  for (std::uint64_t s = 0; s < 40; ++s) {
    const Seeded seeded(s);
    const DeviceArray<int> most_ahead(1);
    run_kernel(run_ahead, 1, 128, sizeof(Ring), most_ahead.data());
    seen.insert(most_ahead.host()[0]);
  }
  EXPECT_LE(*seen.begin(), 1);
  EXPECT_EQ(*seen.rbegin(), 8);
}

}  // namespace
}  // namespace simt
