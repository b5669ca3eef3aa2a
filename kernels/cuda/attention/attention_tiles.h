// Shared by the tensor-core kernels of attention: tiles of heads' rows in shared memory, and products of them.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/parts/mma.h"
#include "kernels/op_types.h"

namespace routescope::kernels::cuda {

inline constexpr int kAttentionWarps = 4;
inline constexpr int kAttentionThreads = kAttentionWarps * kWarp;
inline constexpr float kLog2e = 1.4426950408889634f;

/// Rows of one head in shared memory, in chunks of 16 bytes. Chunk c of row r lies at place c ^ (r % 8) of its row, so
/// that the eight rows of one 8 x 8 matrix, and eight lanes that write one row, fall into different banks. Row
/// arguments of whole matrices are multiples of 8.
template <int kRows, int kHeadDim>
struct HeadTile {
  static constexpr int kChunks = kHeadDim / kVec<bf16>;
  alignas(128) bf16 value[kRows * kHeadDim];

  __device__ bf16* chunk(int row, int c) { return value + row * kHeadDim + (c ^ (row & 7)) * kVec<bf16>; }

  /// Begins to copy `valid` >= 1 rows that lie `stride` elements apart; the others become zero. The whole block.
  __device__ void load_async(const bf16* rows, int stride, int valid) {
    constexpr int kRowsAtOnce = kAttentionThreads / kChunks;
    static_assert(kRows % kRowsAtOnce == 0);
    const int c = static_cast<int>(threadIdx.x) % kChunks, first = static_cast<int>(threadIdx.x) / kChunks;
    const bf16* from = rows + first * stride + c * kVec<bf16>;
#pragma unroll
    for (int i = 0; i < kRows / kRowsAtOnce; ++i) {
      const int row = first + i * kRowsAtOnce;
      copy_async_16(chunk(row, c), from, row < valid);
      from += kRowsAtOnce * stride;
    }
  }

  /// Where a lane finds its row of four matrices, two down and two across, that start at row `row`: as A of a product,
  /// or as B of a product with this tile, and as B of a product with this tile's transpose.
  static __device__ int down_then_across(int row) {
    const int lane = fresh(static_cast<int>(threadIdx.x) % kWarp);
    return (row + lane % 16) * kHeadDim + (lane / 16 ^ lane % 8) * kVec<bf16>;
  }
  static __device__ int across_then_down(int row) {
    const int lane = fresh(static_cast<int>(threadIdx.x) % kWarp);
    return (row + lane / 16 * 8 + lane % 8) * kHeadDim + (lane / 8 % 2 ^ lane % 8) * kVec<bf16>;
  }
  /// The same place `rows` (a multiple of 8) further down and 16 steps further right. With constants, only the lower
  /// bits of the chunk's number, at most four values, take registers.
  static __device__ int further(int place, int rows, int steps) {
    return (place ^ (2 * steps % 8) * kVec<bf16>)+(2 * steps / 8 * 8 * kVec<bf16> + rows * kHeadDim);
  }
};

/// c[m][n] = a b^T of one warp: kRowTiles times 16 rows of `a` from `row` on against all kRows of `b`.
template <int kRowTiles, int kARows, int kRows, int kHeadDim>
__device__ void product_of_rows(FragmentC (&c)[kRowTiles][kRows / 8], const HeadTile<kARows, kHeadDim>& a, int row,
                                const HeadTile<kRows, kHeadDim>& b) {
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int n = 0; n < kRows / 8; ++n) c[m][n] = {{0, 0, 0, 0}};
  }
  const int a_place = a.down_then_across(row), b_place = b.across_then_down(0);
#pragma unroll
  for (int step = 0; step < kHeadDim / 16; ++step) {
    FragmentA from_a[kRowTiles];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) from_a[m] = as_a(load_matrices(a.value, a.further(a_place, 16 * m, step)));
#pragma unroll
    for (int n = 0; n < kRows / 8; n += 2) {
      const FourMatrices from_b = load_matrices(b.value, b.further(b_place, 8 * n, step));
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        multiply_add(c[m][n], from_a[m], left_b(from_b));
        multiply_add(c[m][n + 1], from_a[m], right_b(from_b));
      }
    }
  }
}

/// c[m][n] += w b of one warp, where w [16 kRowTiles, kRows] is the result of an earlier product, rounded to bf16.
template <int kRowTiles, int kRows, int kHeadDim>
__device__ void add_weighted_rows(FragmentC (&c)[kRowTiles][kHeadDim / 8], const FragmentC (&w)[kRowTiles][kRows / 8],
                                  const HeadTile<kRows, kHeadDim>& b) {
  const int b_place = b.down_then_across(0);
#pragma unroll
  for (int step = 0; step < kRows / 16; ++step) {
    FragmentA weights[kRowTiles];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) weights[m] = as_operand(w[m][2 * step], w[m][2 * step + 1]);
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; n += 2) {
      const FourMatrices from_b = load_matrices_transposed(b.value, b.further(b_place, 16 * step, n / 2));
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        multiply_add(c[m][n], weights[m], left_b(from_b));
        multiply_add(c[m][n + 1], weights[m], right_b(from_b));
      }
    }
  }
}

/// Writes one warp's results, times factor[m][h] (row 16 m + 8 h + lane / 4), to `valid` rows in device memory that lie
/// `stride` elements apart. They pass through `tile`, whose rows from `row` on no other warp may read any more.
template <int kRowTiles, int kRows, int kHeadDim>
__device__ void store_rows(bf16* rows, int stride, int valid, const FragmentC (&c)[kRowTiles][kHeadDim / 8],
                           const float (&factor)[kRowTiles][2], HeadTile<kRows, kHeadDim>& tile, int row) {
  constexpr int kChunks = HeadTile<kRows, kHeadDim>::kChunks;
  const int lane = fresh(static_cast<int>(threadIdx.x) % kWarp);
  row = fresh(row);
  __syncwarp();
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; ++n) {
#pragma unroll
      for (int h = 0; h < 2; ++h)
        *reinterpret_cast<std::uint32_t*>(tile.chunk(row + 16 * m + 8 * h + lane / 4, n) + 2 * (lane % 4)) =
            pack_bf16(c[m][n].value[2 * h] * factor[m][h], c[m][n].value[2 * h + 1] * factor[m][h]);
    }
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < kRowTiles * 16 * kChunks / kWarp; ++i) {
    const int at = (i * kWarp + lane) / kChunks, chunk = (i * kWarp + lane) % kChunks;
    if (at < valid)
      *reinterpret_cast<uint4*>(rows + static_cast<std::int64_t>(at) * stride + chunk * kVec<bf16>) =
          *reinterpret_cast<const uint4*>(tile.chunk(row + at, chunk));
  }
}

/// Geometry as kernels take it.
struct Heads {
  int seq_len;
  int heads;
  int kv_heads;
  float scale;  // 1 / sqrt(head_dim)

  explicit Heads(const AttentionShape& shape)
      : seq_len(static_cast<int>(shape.seq_len)),
        heads(static_cast<int>(shape.heads)),
        kv_heads(static_cast<int>(shape.kv_heads)),
        scale(1.0f / std::sqrt(static_cast<float>(shape.head_dim))) {}

  __device__ int group() const { return heads / kv_heads; }
};

}  // namespace routescope::kernels::cuda
