// Planted faults of copies and of order: of each pair of kernels one is right under every seed, and the other has a
// mistake that the emulator must notice.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <set>

#include "kernels/cuda/parts/reduce.h"
#include "tests/simt/device_array.h"
#include "tests/simt/faults.h"

namespace simt {
namespace {

using routescope::kernels::cuda::kFullMask;
using routescope::kernels::cuda::shared_memory;

// ---- copies that are not there yet ----------------------------------------------------------------------------------

struct Staged {
  alignas(16) float value[256];
};
template <bool waits, bool has_barrier>
__global__ void staged_reverse(float* out, const float* in) {
  auto& staged = shared_memory<Staged>();
  const unsigned i = threadIdx.x;
  async_copy(&staged.value[4 * i], in + 4 * i, 16);
  async_commit();
  if constexpr (waits) async_wait(0);
  if constexpr (has_barrier) __syncthreads();
  for (unsigned k = 0; k < 4; ++k) out[4 * i + k] = staged.value[4 * blockDim.x - 1 - 4 * i - k];
}

TEST(PlantedFaults, AsynchronousCopyReadBeforeItsWait) {
  std::vector<float> in(256), expected(256);
  for (std::size_t i = 0; i < 256; ++i) in[i] = expected[255 - i] = static_cast<float>(i);
  const DeviceArray<float> from(in);
  const auto wrong = [&](void (*kernel)(float*, const float*)) {
    return wrong_results(expected, [&](float* out) { run_kernel(kernel, 1, 64, sizeof(Staged), out, from.data()); });
  };
  EXPECT_EQ(wrong(staged_reverse<true, true>), 0u);
  EXPECT_EQ(wrong(staged_reverse<false, true>), kSeeds);
  EXPECT_EQ(wrong(staged_reverse<true, false>), kSeeds);  // a wait is for one's own copies only
}

/// Two stages: the copy of the next tile goes into the place that others may still be reading.
template <bool has_barrier>
__global__ void staged_sums(float* out, const float* in, int tiles) {
  auto& staged = shared_memory<Staged>();
  const unsigned i = threadIdx.x;
  const auto fetch = [&](int tile) {
    async_copy(&staged.value[4 * i], in + static_cast<unsigned>(tile) * 4 * blockDim.x + 4 * i, 16);
    async_commit();
  };
  fetch(0);
  float sum = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    async_wait(0);
    __syncthreads();
    sum += staged.value[(4 * i + 5) % (4 * blockDim.x)];
    if constexpr (has_barrier) __syncthreads();
    if (tile + 1 < tiles) fetch(tile + 1);
  }
  out[i] = sum;
}

TEST(PlantedFaults, AsynchronousCopyIntoAPlaceStillRead) {
  constexpr std::size_t kTiles = 3;
  std::vector<float> in(256 * kTiles), expected(64, 0.0f);
  for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i);
  for (std::size_t i = 0; i < 64; ++i)
    for (std::size_t t = 0; t < kTiles; ++t) expected[i] += in[256 * t + (4 * i + 5) % 256];
  const DeviceArray<float> from(in);
  const auto wrong = [&](void (*kernel)(float*, const float*, int)) {
    return wrong_results(expected, [&](float* out) {
      run_kernel(kernel, 1, 64, sizeof(Staged), out, from.data(), static_cast<int>(kTiles));
    });
  };
  EXPECT_EQ(wrong(staged_sums<true>), 0u);
  EXPECT_EQ(wrong(staged_sums<false>), kSeeds);
}

// ---- sums whose order is left to chance -----------------------------------------------------------------------------

/// What atomicAdd on a float does; the vocabulary leaves it out because of what this test shows.
void add_in_any_order(float* at, float value) {
  auto* bits = reinterpret_cast<unsigned*>(at);
  unsigned seen = __float_as_uint(*at);
  for (;;) {
    const unsigned before = atomicCAS(bits, seen, __float_as_uint(__uint_as_float(seen) + value));
    if (before == seen) return;
    seen = before;
  }
}

__global__ void sum_in_order(float* out, const float* in) {
  struct Shared {
    routescope::kernels::cuda::BlockShared<float> sum;
  };
  const float sum =
      routescope::kernels::cuda::block_sum(in[blockIdx.x * blockDim.x + threadIdx.x], shared_memory<Shared>().sum);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}
__global__ void sum_as_it_comes(float* out, const float* in) {
  add_in_any_order(out, in[blockIdx.x * blockDim.x + threadIdx.x]);
}

TEST(PlantedFaults, ReductionThatDependsOnTheOrder) {
  constexpr std::size_t kThreads = 256;
  std::vector<float> in(kThreads);
  for (std::size_t i = 0; i < kThreads; ++i)
    in[i] = std::sin(static_cast<float>(i * i)) * std::exp2(static_cast<float>(i % 20));
  const DeviceArray<float> from(in);
  std::set<float> in_order, as_it_comes;
  for (std::uint64_t s = 0; s < kSeeds; ++s) {
    const Seeded seeded(s);
    const DeviceArray<float> a(1), b(1);
    run_kernel(sum_in_order, 1, kThreads, sizeof(routescope::kernels::cuda::BlockShared<float>), a.data(), from.data());
    run_kernel(sum_as_it_comes, 1, kThreads, 0, b.data(), from.data());
    in_order.insert(a.host()[0]);
    as_it_comes.insert(b.host()[0]);
  }
  EXPECT_EQ(in_order.size(), 1u);
  EXPECT_GT(as_it_comes.size(), 1u);
}

/// The order of blocks is left to chance too.
__global__ void last_block_wins(int* out, bool in_order) {
  if (threadIdx.x == 0 && (!in_order || blockIdx.x + 1 == gridDim.x)) *out = static_cast<int>(blockIdx.x);
}

TEST(PlantedFaults, TwoBlocksWriteOnePlace) {
  const std::vector<int> expected{7};
  EXPECT_EQ(wrong_results(expected, [](int* out) { run_kernel(last_block_wins, 8, 32, 0, out, true); }), 0u);
  EXPECT_GE(wrong_results(expected, [](int* out) { run_kernel(last_block_wins, 8, 32, 0, out, false); }), kOften);
}

/// An addition to global memory by several threads without an atomic: read, let others go on, write.
template <bool atomic>
__global__ void count_threads(unsigned* out) {
  if (atomic) {
    atomicAdd(out, 1u);
  } else {
    const unsigned before = *out;
    __syncwarp();
    *out = before + 1;
  }
}

TEST(PlantedFaults, CountingWithoutAnAtomic) {
  const std::vector<unsigned> expected{256};
  EXPECT_EQ(wrong_results(expected, [](unsigned* out) { run_kernel(count_threads<true>, 2, 128, 0, out); }), 0u);
  EXPECT_EQ(wrong_results(expected, [](unsigned* out) { run_kernel(count_threads<false>, 2, 128, 0, out); }), kSeeds);
}

}  // namespace
}  // namespace simt
