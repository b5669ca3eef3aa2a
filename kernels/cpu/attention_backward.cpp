// CPU: the gradient of causal grouped-query attention. One task is a key/value head of a sequence: it takes its query
// heads and their strips in order and sums dk and dv, so no two threads add to one place. For each strip and tile
//   w = exp(z - lse),  dv += w^T dout,  dz = w (dout v^T - <dout, out>) / sqrt(head_dim),  dq += dz k,  dk += dz^T q
#include <algorithm>
#include <cmath>

#include "kernels/backends.h"
#include "kernels/cpu/parts/attention_tiles.h"
#include "kernels/cpu/parts/exp.h"
#include "kernels/cpu/parts/operand.h"
#include "kernels/cpu/parts/per_thread.h"

namespace routescope::kernels::cpu {

namespace {

/// A thread's scratch.
struct Piece {
  float* turned_q;     // [head_dim, kStrip]
  float* turned_grad;  // [head_dim, kStrip], of dout
  float* q;            // [kStrip, head_dim]
  float* grad;         // [kStrip, head_dim], of dout
  float* keys;         // [kTile, head_dim]
  float* tile;         // [kTile, kStrip], logits, then weights
  float* tile_grad;    // [kTile, kStrip], gradient of the weights, then of the logits
  float* lse;          // [kStrip]
  float* delta;        // [kStrip], <dout, out>
  Piece(float* at, std::int64_t head_dim)
      : turned_q(at),
        turned_grad(turned_q + head_dim * kStrip),
        q(turned_grad + head_dim * kStrip),
        grad(q + head_dim * kStrip),
        keys(grad + head_dim * kStrip),
        tile(keys + head_dim * kTile),
        tile_grad(tile + kTile * kStrip),
        lse(tile_grad + kTile * kStrip),
        delta(lse + kStrip) {}
  static std::int64_t floats(std::int64_t head_dim) {
    return kStrip * (4 * head_dim + 2 * kTile + 2) + kTile * head_dim;
  }
};

/// Turns logits into weights, and the gradient of the weights into that of the logits (times their scale).
void softmax_backward(const Piece& piece, std::int64_t keys, std::int64_t columns, float scale) {
  for (std::int64_t q = 0; q < columns; q += kWidth) {
    const Whole at{q};
    const Vec lse = at.load(piece.lse), delta = at.load(piece.delta);
    for (std::int64_t k = 0; k < keys; ++k) {
      float* z = piece.tile + k * kStrip;
      float* grad = piece.tile_grad + k * kStrip;
      const Vec w = exp(at.load(z) - lse);
      at.store(grad, w * (at.load(grad) - delta) * scale);
      at.store(z, w);
    }
  }
}

/// lse and delta of a strip's queries; zero beyond the last query. `out` and `lse` start at the strip.
template <class T>
void set_statistics(const Piece& piece, const float* lse, const T* out, std::int64_t out_width, std::int64_t queries,
                    std::int64_t head_dim) {
  std::fill_n(piece.lse, kStrip, 0.0f);
  std::fill_n(piece.delta, kStrip, 0.0f);
  std::copy_n(lse, queries, piece.lse);
  for (std::int64_t q = 0; q < queries; ++q) {
    const float* a = piece.grad + q * head_dim;
    const T* b = out + q * out_width;
    piece.delta[q] = sum_columns(head_dim, [=](auto at) { return at.load(a) * at.load(b); });
  }
}

}  // namespace

void attention_backward(Tensor dqkv, Tensor dout, Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape,
                        const Stream& stream) {
  const std::int64_t width = shape.packed_width(), head_dim = shape.head_dim, seq_len = shape.seq_len;
  const std::int64_t out_width = shape.heads * head_dim, group = shape.heads / shape.kv_heads;
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  Scratch scratch(stream);
  const PerThread pieces(scratch, Piece::floats(head_dim));

  const auto one_strip = [&]<class T>(const T* result, const Strip& strip, std::int64_t sequence, std::int64_t head) {
    const std::int64_t base = sequence * seq_len * width, kv_head = head / group;
    const std::int64_t q_at = base + strip.first * width + head * head_dim;
    const std::int64_t k_at = base + (shape.heads + kv_head) * head_dim, v_at = k_at + shape.kv_heads * head_dim;
    const std::int64_t out_at = (sequence * seq_len + strip.first) * out_width + head * head_dim;
    const float* x = qkv.as<float>();
    const float* grad = dout.as<float>() + out_at;
    float* dx = dqkv.as<float>();
    const Piece piece(pieces.mine(), head_dim);

    pack(piece.q, x + q_at, width, strip.queries, head_dim);
    pack(piece.grad, grad, out_width, strip.queries, head_dim);
    turn(piece.turned_q, piece.q, head_dim, strip, head_dim, scale);
    turn(piece.turned_grad, piece.grad, head_dim, strip, head_dim, 1);
    set_statistics(piece, lse.as<float>() + (sequence * shape.heads + head) * seq_len + strip.first, result + out_at,
                   out_width, strip.queries, head_dim);
    for (std::int64_t q = 0; q < strip.queries; ++q) std::fill_n(dx + q_at + q * width, head_dim, 0.0f);
    for (std::int64_t first = 0; first < strip.keys(); first += kTile) {
      const std::int64_t keys = std::min(kTile, strip.keys() - first), down = first * width;
      pack(piece.keys, x + k_at + down, width, keys, head_dim);
      tile_against(piece.tile, piece.keys, head_dim, keys, piece.turned_q, strip, head_dim);
      tile_against(piece.tile_grad, x + v_at + down, width, keys, piece.turned_grad, strip, head_dim);
      softmax_backward(piece, keys, strip.columns(), scale);
      set_unseen(piece.tile, first, keys, strip, 0);
      set_unseen(piece.tile_grad, first, keys, strip, 0);
      tile_product<true>(dx + v_at + down, width, {piece.tile, kStrip, 1}, piece.grad, head_dim, keys, head_dim,
                         strip.queries);
      tile_product<true>(dx + k_at + down, width, {piece.tile_grad, kStrip, 1}, piece.q, head_dim, keys, head_dim,
                         strip.queries);
      tile_product<true>(dx + q_at, width, {piece.tile_grad, 1, kStrip}, piece.keys, head_dim, strip.queries, head_dim,
                         keys);
    }
  };
  with_operand(out, [&](const auto* result) {
    const std::int64_t tasks = shape.batch * shape.kv_heads;
#pragma omp parallel for schedule(dynamic, 1) if (tasks > 1)
    for (std::int64_t task = 0; task < tasks; ++task) {
      const std::int64_t kv_head = task % shape.kv_heads, sequence = task / shape.kv_heads;
      float* dk = dqkv.as<float>() + sequence * seq_len * width + (shape.heads + kv_head) * head_dim;
      for (std::int64_t t = 0; t < seq_len; ++t) {
        std::fill_n(dk + t * width, head_dim, 0.0f);
        std::fill_n(dk + t * width + shape.kv_heads * head_dim, head_dim, 0.0f);
      }
      for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
        for (std::int64_t first = 0; first < seq_len; first += kStrip)
          one_strip(result, strip_of(first, seq_len), sequence, head);
    }
  });
}

}  // namespace routescope::kernels::cpu
