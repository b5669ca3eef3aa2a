// What the forward and backward pass of attention share: strips of queries against all keys that they may see.
#pragma once

#include <oneapi/dnnl/dnnl.h>

#include <cstdint>

#include "kernels/op_types.h"

namespace routescope::cpu {

/// Queries are taken kStrip at a time; a thread's largest piece of the weights is [kStrip, seq_len].
inline constexpr std::int64_t kStrip = 64;

/// c [m, n] = factor op(a) op(b) + beta c by oneDNN, on the calling thread, which has to be inside a parallel region.
inline void sgemm(float* c, std::int64_t ldc, const float* a, std::int64_t lda, bool transpose_a, const float* b,
                  std::int64_t ldb, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k, float factor,
                  float beta) {
  dnnl_sgemm(transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N', m, n, k, factor, a, lda, b, ldb, beta, c, ldc);
}

}  // namespace routescope::cpu
