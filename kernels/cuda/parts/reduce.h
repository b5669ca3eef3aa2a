// Sums and maxima over a warp and over a block. The order of additions is fixed, so results are the same bits every
// time.
#pragma once

#include "kernels/cuda/parts/launch.h"

namespace routescope::kernels::cuda {

/// Every lane gets the sum (the maximum) of all 32; all of them take part.
template <class T>
__device__ T warp_sum(T value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(kFullMask, value, offset);
  return value;
}
__device__ inline float warp_max(float value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value = fmaxf(value, __shfl_xor_sync(kFullMask, value, offset));
  return value;
}

/// Room for one reduction over a block of at most 1024 threads. One object serves one reduction at a time. A barrier
/// must come between two of them; block_reduce has it.
template <class T>
struct BlockShared {
  T warp[kWarp];
};

/// Every thread of the block gets combine over all threads' values; `neutral` is combine's neutral element. The block
/// is a multiple of 32 threads, all of which take part.
template <class T, class WarpReduce>
__device__ T block_reduce(T value, T neutral, BlockShared<T>& shared, WarpReduce warp_reduce) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  value = warp_reduce(value);
  __syncthreads();  // the previous use of `shared` has ended
  if (lane == 0) shared.warp[warp] = value;
  __syncthreads();
  return warp_reduce(lane < warps ? shared.warp[lane] : neutral);
}
template <class T>
__device__ T block_sum(T value, BlockShared<T>& shared) {
  return block_reduce(value, T{0}, shared, [](T v) { return warp_sum(v); });
}
__device__ inline float block_max(float value, BlockShared<float>& shared) {
  return block_reduce(value, -INFINITY, shared, [](float v) { return warp_max(v); });
}

}  // namespace routescope::kernels::cuda
