// CPU: causal grouped-query attention. A task is a strip of queries of one head. It takes its keys a tile at a time,
// with a running maximum m and sum l of exponentials (as in FlashAttention, Dao et al. 2022):
//   z = q k^T / sqrt(head_dim);  m' = max(m, max z);  w = exp(z - m');  l = l exp(m - m') + sum w;
//   out = out exp(m - m') + w v;  in the end out /= l and lse = m + ln l.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/backends.h"
#include "kernels/cpu/parts/attention_tiles.h"
#include "kernels/cpu/parts/exp.h"
#include "kernels/cpu/parts/operand.h"
#include "kernels/cpu/parts/per_thread.h"

namespace routescope::kernels::cpu {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// A thread's scratch.
struct Piece {
  float* turned;  // [head_dim, kStrip], the queries
  float* tile;    // [kTile, kStrip], logits, then weights
  float* out;     // [kStrip, head_dim]
  float* max;     // [kStrip]
  float* sum;     // [kStrip]
  float* factor;  // [kStrip], exp(m - m')
  Piece(float* at, std::int64_t head_dim)
      : turned(at),
        tile(turned + head_dim * kStrip),
        out(tile + kTile * kStrip),
        max(out + kStrip * head_dim),
        sum(max + kStrip),
        factor(sum + kStrip) {}
  static std::int64_t floats(std::int64_t head_dim) { return kStrip * (2 * head_dim + kTile + 3); }
};

/// Turns the tile's logits into weights, and updates max, sum and factor.
void exponentiate(const Piece& piece, std::int64_t keys, std::int64_t columns) {
  for (std::int64_t q = 0; q < columns; q += kWidth) {
    const Whole at{q};
    const Vec before = at.load(piece.max);
    Vec largest = before;
    for (std::int64_t k = 0; k < keys; ++k) largest = larger(largest, at.load(piece.tile + k * kStrip));
    Vec sum{};
    for (std::int64_t k = 0; k < keys; ++k) {
      const Vec w = exp(at.load(piece.tile + k * kStrip) - largest);
      at.store(piece.tile + k * kStrip, w);
      sum += w;
    }
    const Vec factor = exp(before - largest);
    at.store(piece.factor, factor);
    at.store(piece.sum, at.load(piece.sum) * factor + sum);
    at.store(piece.max, largest);
  }
}

}  // namespace

void attention_forward(Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape, const Stream& stream) {
  const std::int64_t width = shape.packed_width(), head_dim = shape.head_dim, seq_len = shape.seq_len;
  const std::int64_t group = shape.heads / shape.kv_heads, strips = (seq_len + kStrip - 1) / kStrip;
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  Scratch scratch(stream);
  const PerThread pieces(scratch, Piece::floats(head_dim));
  const std::int64_t heads = shape.batch * shape.heads;
  with_operand(out, [&]<class T>(T* result) {
#pragma omp parallel for schedule(dynamic, 1) if (heads * strips > 1)
    for (std::int64_t task = 0; task < heads * strips; ++task) {
      // The longest strips first, so that the threads end at about the same time.
      const Strip strip = strip_of((strips - 1 - task / heads) * kStrip, seq_len);
      const std::int64_t head = task % shape.heads, sequence = task % heads / shape.heads;
      const float* rows = qkv.as<float>() + sequence * seq_len * width;
      const float* keys = rows + (shape.heads + head / group) * head_dim;
      const float* values = keys + shape.kv_heads * head_dim;

      const Piece piece(pieces.mine(), head_dim);
      turn(piece.turned, rows + strip.first * width + head * head_dim, width, strip, head_dim, scale);
      std::fill_n(piece.max, kStrip, -kInfinity);
      std::fill_n(piece.sum, kStrip, 0.0f);
      std::fill_n(piece.out, kStrip * head_dim, 0.0f);
      for (std::int64_t first = 0; first < strip.keys(); first += kTile) {
        const std::int64_t count = std::min(kTile, strip.keys() - first);
        tile_against(piece.tile, keys + first * width, width, count, piece.turned, strip, head_dim);
        set_unseen(piece.tile, first, count, strip, -kInfinity);
        exponentiate(piece, count, strip.columns());
        for (std::int64_t q = 0; q < strip.queries; ++q) {
          float* row = piece.out + q * head_dim;
          for_columns(head_dim, [&](auto at) { at.store(row, at.load(row) * piece.factor[q]); });
        }
        tile_product<true>(piece.out, head_dim, {piece.tile, 1, kStrip}, values + first * width, width, strip.queries,
                           head_dim, count);
      }
      for (std::int64_t q = 0; q < strip.queries; ++q) {
        const std::int64_t position = strip.first + q;
        lse.as<float>()[(sequence * shape.heads + head) * seq_len + position] = piece.max[q] + std::log(piece.sum[q]);
        const float* from = piece.out + q * head_dim;
        T* to = result + ((sequence * seq_len + position) * shape.heads + head) * head_dim;
        for_columns(head_dim, [&](auto at) { at.store(to, at.load(from) / piece.sum[q]); });
      }
    }
  });
}

}  // namespace routescope::kernels::cpu
