// The second level of sums over tokens:  dst[j] += sum_p partials[p, j],  partials [count, width].
// Reads count * width floats that the first level has just left in the cache, so it is latency that counts: a block
// takes 32 columns, each of its 32 warps every 32nd row, eight of them in flight. At 500 rows that is two rounds of
// loads (aim: 5 us).
#include "kernels/cuda/partials.h"
#include "kernels/cuda/reduce.h"

namespace routescope::cuda {

namespace {

constexpr int kWarps = 32;

struct Shared {
  float sum[kWarps][kWarp + 1];
};

__global__ void __launch_bounds__(kWarps* kWarp)
    add_partials_kernel(float* __restrict__ dst, const float* __restrict__ partials, int count, int width) {
  auto& shared = shared_memory<Shared>();
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int first_column = static_cast<int>(blockIdx.x) * kWarp, column = first_column + lane;
  float sum = 0;
  if (column < width) {
    constexpr int kUnroll = 8;
    for (int row = warp; row < count; row += kUnroll * kWarps) {
      float value[kUnroll];
#pragma unroll
      for (int i = 0; i < kUnroll; ++i) {
        const int at = row + i * kWarps;
        value[i] = at < count ? partials[static_cast<std::int64_t>(at) * width + column] : 0.0f;
      }
#pragma unroll
      for (int i = 0; i < kUnroll; ++i) sum += value[i];
    }
  }
  shared.sum[warp][lane] = sum;
  __syncthreads();
  // Each warp now takes a column, each lane one former warp.
  const float total = warp_sum(shared.sum[lane][warp]);
  if (lane == 0 && first_column + warp < width) dst[first_column + warp] += total;
}

}  // namespace

void add_partials(float* dst, const float* partials, int count, int width, const Stream& stream) {
  const auto blocks = static_cast<unsigned>(ceil_div(width, kWarp));
  launch("add_partials", add_partials_kernel, {dim3(blocks), kWarps * kWarp, sizeof(Shared)}, stream, dst, partials,
         count, width);
}

}  // namespace routescope::cuda
