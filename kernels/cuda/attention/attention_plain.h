// Shared by the plain attention kernels (without tensor cores): tiles of heads' rows as floats in shared memory, and
// products of them. A warp has kPlainOwn rows of its own. The other rows come in tiles of 32, one for each lane, so
// that a dot product needs no exchange and the maximum or sum over a tile is one reduction over the warp.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/parts/reduce.h"
#include "kernels/cuda/parts/vec.h"
#include "kernels/op_types.h"

namespace routescope::kernels::cuda {

inline constexpr int kPlainWarps = 4;
inline constexpr int kPlainThreads = kPlainWarps * kWarp;
inline constexpr int kPlainOwn = 4;  // rows of a warp
inline constexpr int kPlainRows = kPlainWarps * kPlainOwn;

/// Rows of up to 32 kColumns floats. One float of padding a row lets 32 lanes read one column of as many rows at once.
template <int kRows, int kColumns>
struct PlainTile {
  static constexpr int kStride = kColumns * kWarp + 1;
  float value[kRows * kStride];

  __device__ const float* row(int r) const { return value + r * kStride; }

  /// `valid` rows of `head_dim` elements that lie `stride` apart; the rest, also of each row, is zero. The whole block;
  /// needs a barrier before and after.
  template <class T>
  __device__ void load_rows(const T* rows, std::int64_t stride, int valid, int head_dim) {
    for (int i = static_cast<int>(threadIdx.x); i < kRows * kColumns * kWarp; i += kPlainThreads) {
      const int r = i / (kColumns * kWarp), e = i % (kColumns * kWarp);
      value[r * kStride + e] = r < valid && e < head_dim ? load(rows + r * stride + e) : 0.0f;
    }
  }
};

/// sum[r] = <row r of a warp's own rows, this lane's row of the others>.
template <int kRows, int kColumns>
__device__ void plain_products(float (&sum)[kPlainOwn], const PlainTile<kRows, kColumns>& own, int first,
                               const PlainTile<kWarp, kColumns>& other, int head_dim) {
  const float* theirs = other.row(static_cast<int>(threadIdx.x) % kWarp);
#pragma unroll
  for (int r = 0; r < kPlainOwn; ++r) sum[r] = 0;
  for (int e = 0; e < head_dim; ++e) {
    const float x = theirs[e];
#pragma unroll
    for (int r = 0; r < kPlainOwn; ++r) sum[r] = fmaf(own.row(first + r)[e], x, sum[r]);
  }
}

/// sum[r][i] += sum over the 32 others j of weight[r][j] other[j][lane + 32 i].
template <int kColumns>
__device__ void plain_add_weighted(float (&sum)[kPlainOwn][kColumns], const float (&weight)[kPlainOwn][kWarp],
                                   const PlainTile<kWarp, kColumns>& other) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int j = 0; j < kWarp; ++j) {
    const float* row = other.row(j) + lane;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      const float x = row[i * kWarp];
#pragma unroll
      for (int r = 0; r < kPlainOwn; ++r) sum[r][i] = fmaf(weight[r][j], x, sum[r][i]);
    }
  }
}

template <class T, int kColumns>
__device__ void plain_store(T* row, const float (&sum)[kColumns], float factor, int head_dim) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int i = 0; i < kColumns; ++i)
    if (lane + i * kWarp < head_dim) store(row + lane + i * kWarp, sum[i] * factor);
}

/// Geometry as kernels take it, and where a head's rows are: elements from the tensor's beginning.
struct PlainHeads {
  int seq_len, heads, kv_heads, head_dim;
  float scale;  // 1 / sqrt(head_dim)

  explicit PlainHeads(const AttentionShape& shape)
      : seq_len(static_cast<int>(shape.seq_len)),
        heads(static_cast<int>(shape.heads)),
        kv_heads(static_cast<int>(shape.kv_heads)),
        head_dim(static_cast<int>(shape.head_dim)),
        scale(1.0f / std::sqrt(static_cast<float>(shape.head_dim))) {}

  __device__ std::int64_t width() const { return static_cast<std::int64_t>(heads + 2 * kv_heads) * head_dim; }
  __device__ std::int64_t out_width() const { return static_cast<std::int64_t>(heads) * head_dim; }
  __device__ std::int64_t query(int sequence, int row, int head) const {
    return (static_cast<std::int64_t>(sequence) * seq_len + row) * width() + head * head_dim;
  }
  __device__ std::int64_t key(int sequence, int row, int kv_head) const {
    return query(sequence, row, heads + kv_head);
  }
  __device__ std::int64_t value(int sequence, int row, int kv_head) const {
    return query(sequence, row, heads + kv_heads + kv_head);
  }
  __device__ std::int64_t out(int sequence, int row, int head) const {
    return (static_cast<std::int64_t>(sequence) * seq_len + row) * out_width() + head * head_dim;
  }
  __device__ std::int64_t statistic(int sequence, int row, int head) const {
    return (static_cast<std::int64_t>(sequence) * heads + head) * seq_len + row;
  }
};

/// Calls body.template operator()<kColumns>() with the least of 1, 2, 4, 8 that holds head_dim in 32 kColumns.
template <class Body>
void with_columns(std::int64_t head_dim, Body&& body) {
  if (head_dim <= kWarp)
    body.template operator()<1>();
  else if (head_dim <= 2 * kWarp)
    body.template operator()<2>();
  else if (head_dim <= 4 * kWarp)
    body.template operator()<4>();
  else
    body.template operator()<8>();
}

}  // namespace routescope::kernels::cuda
