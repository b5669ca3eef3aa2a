// Planted faults of barriers, bounds and shared memory. Of each pair of kernels one is right under every seed. The
// other has a common mistake of CUDA kernels, and the emulator must notice it: by a wrong result under some seeds, by a
// message, or by AddressSanitizer.
#include "tests/simt/faults.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "kernels/cuda/parts/reduce.h"
#include "kernels/cuda/parts/vec.h"
#include "tests/simt/device_array.h"

namespace simt {
namespace {

using routescope::kernels::cuda::kFullMask;
using routescope::kernels::cuda::shared_memory;

struct Row {
  float value[256];
};

// ---- a barrier left out ---------------------------------------------------------------------------------------------

template <bool has_barrier>
__global__ void reverse(float* out, const float* in) {
  auto& row = shared_memory<Row>();
  const unsigned i = threadIdx.x;
  row.value[i] = in[i];
  if constexpr (has_barrier) __syncthreads();
  out[i] = row.value[blockDim.x - 1 - i];
}

TEST(PlantedFaults, BarrierBetweenWritingAndReading) {
  std::vector<float> in(256), expected(256);
  for (std::size_t i = 0; i < 256; ++i) in[i] = expected[255 - i] = static_cast<float>(i);
  const DeviceArray<float> from(in);
  EXPECT_EQ(
      wrong_results(expected, [&](float* out) { run_kernel(reverse<true>, 1, 256, sizeof(Row), out, from.data()); }),
      0u);
  EXPECT_EQ(
      wrong_results(expected, [&](float* out) { run_kernel(reverse<false>, 1, 256, sizeof(Row), out, from.data()); }),
      kSeeds);
}

/// Sums of neighbours, two rows through one place in shared memory.
template <bool has_barrier>
__global__ void two_rows(float* out, const float* in) {
  auto& row = shared_memory<Row>();
  const unsigned i = threadIdx.x;
  for (unsigned r = 0; r < 2; ++r) {
    if constexpr (has_barrier) __syncthreads();  // everybody has read the former row
    row.value[i] = in[r * blockDim.x + i];
    __syncthreads();
    out[r * blockDim.x + i] = row.value[i] + row.value[(i + 1) % blockDim.x];
  }
}

TEST(PlantedFaults, BarrierBeforeSharedMemoryIsWrittenAgain) {
  std::vector<float> in(512), expected(512);
  for (std::size_t i = 0; i < 512; ++i) in[i] = static_cast<float>(i * i % 1009);
  for (std::size_t i = 0; i < 512; ++i) expected[i] = in[i] + in[i / 256 * 256 + (i + 1) % 256];
  const DeviceArray<float> from(in);
  EXPECT_EQ(
      wrong_results(expected, [&](float* out) { run_kernel(two_rows<true>, 1, 256, sizeof(Row), out, from.data()); }),
      0u);
  EXPECT_GE(
      wrong_results(expected, [&](float* out) { run_kernel(two_rows<false>, 1, 256, sizeof(Row), out, from.data()); }),
      kOften);
}

/// A block's sum as block_sum makes it, except that the leading barrier may be missing: two sums in a row then use one
/// place without waiting for the readers of the first.
template <bool has_barrier>
__global__ void two_sums(float* out, const float* in) {
  auto& row = shared_memory<Row>();
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  float sums[2];
  for (int r = 0; r < 2; ++r) {
    const float sum = routescope::kernels::cuda::warp_sum(in[static_cast<unsigned>(r) * blockDim.x + threadIdx.x]);
    if constexpr (has_barrier) __syncthreads();
    if (lane == 0) row.value[warp] = sum;
    __syncthreads();
    sums[r] = routescope::kernels::cuda::warp_sum(lane < blockDim.x / 32 ? row.value[lane] : 0.0f);
  }
  out[threadIdx.x] = sums[0] - sums[1];
}

TEST(PlantedFaults, BarrierBetweenTwoReductions) {
  std::vector<float> in(512);
  for (std::size_t i = 0; i < 512; ++i) in[i] = i < 256 ? 3.0f : 1.0f;
  const DeviceArray<float> from(in);
  const std::vector<float> expected(256, 512.0f);
  EXPECT_EQ(
      wrong_results(expected, [&](float* out) { run_kernel(two_sums<true>, 1, 256, sizeof(Row), out, from.data()); }),
      0u);
  EXPECT_GE(
      wrong_results(expected, [&](float* out) { run_kernel(two_sums<false>, 1, 256, sizeof(Row), out, from.data()); }),
      kOften);
}

// ---- a barrier that not all reach -----------------------------------------------------------------------------------

template <bool returns_early>
__global__ void scale_row(float* row, int d) {
  const int i = static_cast<int>(threadIdx.x);
  if (returns_early && i >= d) return;
  auto& shared = shared_memory<Row>();
  shared.value[i] = i < d ? row[i] : 0.0f;
  __syncthreads();
  if (i < d) row[i] = shared.value[i] * shared.value[0];
}

TEST(PlantedFaults, BarrierUnderDivergence) {
  for (std::uint64_t s = 0; s < kSeeds; ++s) {
    const Seeded seeded(s);
    const DeviceArray<float> row(100, 2.0f);
    run_kernel(scale_row<false>, 1, 128, sizeof(Row), row.data(), 100);
    EXPECT_EQ(row.host(), std::vector<float>(100, 4.0f));
    EXPECT_TRUE(mentions(error_of([&] { run_kernel(scale_row<true>, 1, 128, sizeof(Row), row.data(), 100); }),
                         {"threads 100-127 left the kernel", "threads 0-99 wait at __syncthreads"}));
  }
}

// ---- past the end ---------------------------------------------------------------------------------------------------

__global__ void negate_rows(float* out, const float* in, int d, int limit) {
  const float* row = in + static_cast<std::int64_t>(blockIdx.x) * d;
  float* to = out + static_cast<std::int64_t>(blockIdx.x) * d;
  for (int i = static_cast<int>(threadIdx.x); i < limit; i += static_cast<int>(blockDim.x)) to[i] = -row[i];
}

TEST(PlantedFaultsDeathTest, TailOneElementTooLong) {
  const DeviceArray<float> in(3 * 33, 1.0f), out(3 * 33), room(3 * 33 + 1, 1.0f);
  for (std::uint64_t s = 0; s < kSeeds; ++s) {
    const Seeded seeded(s);
    run_kernel(negate_rows, 3, 32, 0, out.data(), in.data(), 33, 33);
    EXPECT_EQ(out.host(), std::vector<float>(3 * 33, -1.0f));
  }
  // One beyond the last row's end, by reading alone and by writing alone.
  EXPECT_DEATH(run_kernel(negate_rows, 3, 32, 0, room.data(), in.data(), 33, 34), "READ of size 4");
  EXPECT_DEATH(run_kernel(negate_rows, 3, 32, 0, out.data(), room.data(), 33, 34), "WRITE of size 4");
}

__global__ void copy_vectors(routescope::kernels::bf16* out, const routescope::kernels::bf16* in, int d) {
  constexpr int kVec = routescope::kernels::cuda::kVec<routescope::kernels::bf16>;
  const int begin = static_cast<int>(threadIdx.x) * kVec;
  if (begin < d) routescope::kernels::cuda::store_vec(out + begin, routescope::kernels::cuda::load_vec(in + begin));
}

TEST(PlantedFaultsDeathTest, WholeVectorsOverARowThatIsNoMultiple) {
  const DeviceArray<routescope::kernels::bf16> whole(64), half(60);
  run_kernel(copy_vectors, 1, 32, 0, whole.data(), whole.data(), 64);
  EXPECT_DEATH(run_kernel(copy_vectors, 1, 32, 0, whole.data(), half.data(), 60), "READ of size");
  EXPECT_DEATH(run_kernel(copy_vectors, 1, 32, 0, half.data(), whole.data(), 60), "WRITE of size");
}

struct Narrow {
  float value[100];
};
__global__ void fill_shared(float* out, int count) {
  auto& narrow = shared_memory<Narrow>();
  float* values = narrow.value;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) values[i] = 1.0f;
  __syncthreads();
  *out = values[count - 1];
}

TEST(PlantedFaultsDeathTest, WritePastSharedMemory) {
  const DeviceArray<float> out(1);
  run_kernel(fill_shared, 1, 64, sizeof(Narrow), out.data(), 100);
  EXPECT_EQ(out.host()[0], 1.0f);
  EXPECT_DEATH(run_kernel(fill_shared, 1, 64, sizeof(Narrow), out.data(), 101), "WRITE of size 4");
}

struct TwoRows {
  float first[32], second[32];
};
__global__ void fill_first(int count) {
  auto& rows = shared_memory<TwoRows>();
  rows.first[static_cast<int>(threadIdx.x) % count] = 0.0f;
}

TEST(PlantedFaultsDeathTest, IndexOutOfOneArrayIntoTheNext) {
  run_kernel(fill_first, 1, 64, sizeof(TwoRows), 32);
  EXPECT_DEATH(run_kernel(fill_first, 1, 64, sizeof(TwoRows), 33), "index 32 out of bounds");
}

// ---- exchanges ------------------------------------------------------------------------------------------------------

/// The sum over the first `count` threads' values in warps of which the last is not full.
template <bool all_lanes>
__global__ void sum_of_some(float* out, const float* in, int count) {
  const int i = static_cast<int>(threadIdx.x);
  float value = i < count ? in[i] : 0.0f;
  if (all_lanes || i < count)
    for (int offset = 16; offset > 0; offset /= 2)
      value += __shfl_xor_sync(routescope::kernels::cuda::kFullMask, value, offset);
  if (i % 32 == 0 && i < count) out[i / 32] = value;
}

TEST(PlantedFaults, ShuffleUnderADivergentMask) {
  const DeviceArray<float> in(40, 1.0f);
  const std::vector<float> expected{32.0f, 8.0f};
  EXPECT_EQ(wrong_results(expected, [&](float* out) { run_kernel(sum_of_some<true>, 1, 64, 0, out, in.data(), 40); }),
            0u);
  const DeviceArray<float> out(2);
  for (std::uint64_t s = 0; s < kSeeds; ++s) {
    const Seeded seeded(s);
    EXPECT_TRUE(mentions(error_of([&] { run_kernel(sum_of_some<false>, 1, 64, 0, out.data(), in.data(), 40); }),
                         {"threads 32-39 wait at __shfl_xor_sync", "for threads 40-63"}));
  }
}

template <bool has_syncwarp>
__global__ void rotate_in_warp(float* out, const float* in) {
  auto& row = shared_memory<Row>();
  const unsigned i = threadIdx.x;
  row.value[i] = in[i];
  if constexpr (has_syncwarp) __syncwarp();
  out[i] = row.value[i / 32 * 32 + (i + 1) % 32];
}

TEST(PlantedFaults, WarpExchangesThroughSharedMemoryWithoutSyncwarp) {
  std::vector<float> in(128), expected(128);
  for (std::size_t i = 0; i < 128; ++i) in[i] = static_cast<float>(i);
  for (std::size_t i = 0; i < 128; ++i) expected[i] = in[i / 32 * 32 + (i + 1) % 32];
  const DeviceArray<float> from(in);
  EXPECT_EQ(wrong_results(expected,
                          [&](float* out) { run_kernel(rotate_in_warp<true>, 1, 128, sizeof(Row), out, from.data()); }),
            0u);
  EXPECT_EQ(
      wrong_results(expected,
                    [&](float* out) { run_kernel(rotate_in_warp<false>, 1, 128, sizeof(Row), out, from.data()); }),
      kSeeds);
}

// ---- what was never written -----------------------------------------------------------------------------------------

/// Adds in shared memory, which the device does not clear.
template <bool clears>
__global__ void histogram_of_one(float* out) {
  auto& row = shared_memory<Row>();
  if (clears) row.value[threadIdx.x] = 0.0f;
  row.value[threadIdx.x] += 2.0f;
  out[threadIdx.x] = row.value[threadIdx.x];
}

TEST(PlantedFaults, UninitialisedSharedMemory) {
  const std::vector<float> expected(64, 2.0f);
  EXPECT_EQ(wrong_results(expected, [](float* out) { run_kernel(histogram_of_one<true>, 1, 64, sizeof(Row), out); }),
            0u);
  EXPECT_EQ(wrong_results(expected, [](float* out) { run_kernel(histogram_of_one<false>, 1, 64, sizeof(Row), out); }),
            kSeeds);
}

}  // namespace
}  // namespace simt
