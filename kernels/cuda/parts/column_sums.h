// The second level of sums over tokens: each column of partials [count, width] is summed in a fixed order. The first
// level has just left the partials in the cache, so latency is the bound: a block takes 32 columns, each of its 32
// warps takes every 32nd row, with eight loads in flight.
#pragma once

#include "kernels/cuda/parts/reduce.h"

namespace routescope::kernels::cuda {

inline constexpr int kColumnSumThreads = kWarp * kWarp;

struct ColumnSumsShared {
  float sum[kWarp][kWarp + 1];
};

inline Grid column_sums_grid(int width) {
  return {dim3(static_cast<unsigned>(ceil_div(width, kWarp))), kColumnSumThreads, sizeof(ColumnSumsShared)};
}

/// finish(j, sum over rows of partials[row, j]) once for each column j, in a kernel on column_sums_grid(width).
template <class Finish>
__device__ void column_sums(const float* partials, int count, int width, Finish&& finish) {
  auto& shared = shared_memory<ColumnSumsShared>();
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int first_column = static_cast<int>(blockIdx.x) * kWarp, column = first_column + lane;
  float sum = 0;
  if (column < width) {
    constexpr int kUnroll = 8;
    for (int row = warp; row < count; row += kUnroll * kWarp) {
      float value[kUnroll];
#pragma unroll
      for (int i = 0; i < kUnroll; ++i) {
        const int at = row + i * kWarp;
        value[i] = at < count ? partials[static_cast<std::int64_t>(at) * width + column] : 0.0f;
      }
#pragma unroll
      for (int i = 0; i < kUnroll; ++i) sum += value[i];
    }
  }
  shared.sum[warp][lane] = sum;
  __syncthreads();
  // Now each warp takes a column, and each lane the sum that one warp made.
  const float total = warp_sum(shared.sum[lane][warp]);
  if (lane == 0 && first_column + warp < width) finish(first_column + warp, total);
}

}  // namespace routescope::kernels::cuda
