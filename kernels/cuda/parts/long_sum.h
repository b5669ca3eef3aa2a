// A block's sum in double over a long array of floats: gradients, losses.
#pragma once

#include "kernels/cuda/parts/vec.h"

namespace routescope::kernels::cuda {

/// The calling thread's part of the sum of term(x[i]) for i in [begin, end), where kThreads threads share the work and
/// begin is a multiple of kVec<float>; `aligned`: x starts on 16 bytes. Four loads are in flight.
template <int kThreads, class Term>
__device__ double long_sum(const float* x, std::int64_t begin, std::int64_t end, bool aligned, Term&& term) {
  constexpr int kUnroll = 4, kStride = kThreads * kVec<float>;
  double sum = 0;
  for (std::int64_t at = begin + static_cast<int>(threadIdx.x) * kVec<float>; at < end; at += kUnroll * kStride) {
    Vec<float> v[kUnroll];
    if (aligned && at + (kUnroll - 1) * kStride + kVec<float> <= end) {
#pragma unroll
      for (int k = 0; k < kUnroll; ++k) v[k] = load_vec(x + at + k * kStride);
#pragma unroll
      for (int k = 0; k < kUnroll; ++k)
#pragma unroll
        for (int i = 0; i < kVec<float>; ++i) sum += term(static_cast<double>(v[k].value[i]));
    } else {
      for (int k = 0; k < kUnroll; ++k)
        for (std::int64_t i = at + k * kStride; i < at + k * kStride + kVec<float> && i < end; ++i)
          sum += term(static_cast<double>(x[i]));
    }
  }
  return sum;
}

}  // namespace routescope::kernels::cuda
