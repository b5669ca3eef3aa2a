// Shared by both passes of attention: the cut into strips of queries and tiles of keys, and the tile of logits. The
// tile has a row for each key and a column for each query. So a vector computes the softmax of 16 queries at once, and
// only the queries of the strip must be transposed ("turned").
#pragma once

#include <algorithm>

#include "kernels/cpu/parts/tile_product.h"
#include "kernels/op_types.h"

namespace routescope::kernels::cpu {

inline constexpr std::int64_t kStrip = 64;  // queries
inline constexpr std::int64_t kTile = 128;  // keys

/// Some consecutive queries of one head.
struct Strip {
  std::int64_t first;
  std::int64_t queries;
  /// Keys that its last query sees.
  std::int64_t keys() const { return first + queries; }
  /// Columns of its tiles: whole vectors. Those beyond `queries` hold numbers that nothing reads.
  std::int64_t columns() const { return (queries + kWidth - 1) / kWidth * kWidth; }
};

inline Strip strip_of(std::int64_t first, std::int64_t seq_len) {
  return {first, std::min(kStrip, seq_len - first)};
}

/// turned [head_dim, kStrip] = factor * rows [queries, head_dim]^T, zero beyond the queries.
inline void turn(float* turned, const float* rows, std::int64_t leading, const Strip& strip, std::int64_t head_dim,
                 float factor) {
  // A row at a time: the columns of rows that lie a power of two apart would all fall into one set of the cache.
  for (std::int64_t q = 0; q < strip.queries; ++q)
    for (std::int64_t e = 0; e < head_dim; ++e) turned[e * kStrip + q] = factor * rows[q * leading + e];
  for (std::int64_t q = strip.queries; q < strip.columns(); ++q)
    for (std::int64_t e = 0; e < head_dim; ++e) turned[e * kStrip + q] = 0;
}

/// packed [count, head_dim] = rows. Rows that are read many times are copied together first: rows that lie a power of
/// two apart would fall into a few sets of the caches and evict each other.
inline void pack(float* packed, const float* rows, std::int64_t leading, std::int64_t count, std::int64_t head_dim) {
  for (std::int64_t i = 0; i < count; ++i) std::copy_n(rows + i * leading, head_dim, packed + i * head_dim);
}

/// tile [keys, kStrip] = rows [keys, head_dim] turned [head_dim, kStrip]: logits from keys and turned queries,
/// gradients of weights from values and turned gradients.
inline void tile_against(float* tile, const float* rows, std::int64_t leading, std::int64_t keys, const float* turned,
                         const Strip& strip, std::int64_t head_dim) {
  tile_product<false>(tile, kStrip, {rows, leading, 1}, turned, kStrip, keys, strip.columns(), head_dim);
}

/// Sets the entries of keys after their query, of the keys first_key .. first_key + keys, to `value`.
inline void set_unseen(float* tile, std::int64_t first_key, std::int64_t keys, const Strip& strip, float value) {
  for (std::int64_t k = std::max<std::int64_t>(0, strip.first + 1 - first_key); k < keys; ++k)
    std::fill_n(tile + k * kStrip, std::min(strip.columns(), first_key + k - strip.first), value);
}

}  // namespace routescope::kernels::cpu
