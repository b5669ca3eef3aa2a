// Matrix products of tiles that fit the caches, for attention: c (+)= a b with a read by element and b by row vector. A
// block of 6 rows by 4 vectors of c (or 8 by 2) stays in registers over the whole of k, which keeps the multipliers
// busy: 24 multiply-adds for 10 loads.
#pragma once

#include "kernels/cpu/parts/vec.h"

namespace routescope::kernels::cpu {

/// A matrix by element: entry (i, k) is at data[i * row + k * column].
struct Strided {
  const float* data;
  std::int64_t row;
  std::int64_t column;
};

/// 24 sums and their operands take 29 registers, 8 sums 10.
inline constexpr int kBlockVecs = kVecBytes == 64 ? 4 : 1;

/// kRows rows from row i on, and the columns at `at`.
template <int kRows, bool kAdd, class Vecs, class At>
inline void product_block(float* c, std::int64_t ldc, const Strided& a, const float* b, std::int64_t ldb,
                          std::int64_t i, std::int64_t depth, Vecs vecs, At at) {
  Vec sum[kRows][vecs];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < vecs; ++v) sum[r][v] = Vec{};
  const float* entry = a.data + i * a.row;
  for (std::int64_t k = 0; k < depth; ++k) {
    Vec row[vecs];
    for (int v = 0; v < vecs; ++v) row[v] = next(at, v).load(b);
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < vecs; ++v) sum[r][v] += entry[r * a.row] * row[v];
    entry += a.column;
    b += ldb;
  }
  for (int r = 0; r < kRows; ++r) {
    float* to = c + (i + r) * ldc;
    for (int v = 0; v < vecs; ++v) {
      const auto place = next(at, v);
      place.store(to, kAdd ? place.load(to) + sum[r][v] : sum[r][v]);
    }
  }
}

/// c [m, n] = a [m, depth] b [depth, n], or += with kAdd.
template <bool kAdd>
inline void tile_product(float* c, std::int64_t ldc, const Strided& a, const float* b, std::int64_t ldb, std::int64_t m,
                         std::int64_t n, std::int64_t depth) {
  for_column_blocks<kBlockVecs>(n, [&](auto vecs, auto at) {
    constexpr int kRows = vecs == 4 ? 6 : 8;
    std::int64_t i = 0;
    for (; i + kRows <= m; i += kRows) product_block<kRows, kAdd>(c, ldc, a, b, ldb, i, depth, vecs, at);
    for (; i + 4 <= m; i += 4) product_block<4, kAdd>(c, ldc, a, b, ldb, i, depth, vecs, at);
    for (; i < m; ++i) product_block<1, kAdd>(c, ldc, a, b, ldb, i, depth, vecs, at);
  });
}

}  // namespace routescope::kernels::cpu
