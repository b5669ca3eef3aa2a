// CPU: the gradient of causal grouped-query attention. One task is a key/value head of a sequence: it goes through its
// query heads and their strips in order and adds up dk and dv, so no two threads add to one place.
//   w = exp(z - lse),  dv += w^T dout,  dz = w (dout v^T - <dout, out>) / sqrt(head_dim),  dq = dz k,  dk += dz^T q
#include <algorithm>
#include <cmath>

#include "kernels/backends.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/exp.h"
#include "kernels/cpu/operand.h"
#include "kernels/cpu/per_thread.h"

namespace routescope::cpu {

namespace {

/// Row by row: z becomes w and dw becomes dz, both 0 after the row's own position.
void softmax_backward(float* z, float* dw, float lse, float delta, float scale, std::int64_t visible,
                      std::int64_t keys) {
  for_columns(visible, [=](auto at) {
    const Vec w = exp(at.load(z) - lse);
    at.store(dw, w * (at.load(dw) - delta) * scale);
    at.store(z, w);
  });
  std::fill(z + visible, z + keys, 0.0f);
  std::fill(dw + visible, dw + keys, 0.0f);
}

}  // namespace

void attention_backward(Tensor dqkv, Tensor dout, Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape,
                        const Stream& stream) {
  const std::int64_t width = shape.packed_width(), head_dim = shape.head_dim, seq_len = shape.seq_len;
  const std::int64_t out_width = shape.heads * head_dim, group = shape.heads / shape.kv_heads;
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  Scratch scratch(stream);
  const PerThread weights(scratch, kStrip * seq_len);
  const PerThread weight_gradients(scratch, kStrip * seq_len);
  with_operand(out, [&]<class T>(const T* result) {
#pragma omp parallel for schedule(dynamic, 1)
    for (std::int64_t task = 0; task < shape.batch * shape.kv_heads; ++task) {
      const std::int64_t kv_head = task % shape.kv_heads, sequence = task / shape.kv_heads;
      const std::int64_t base = sequence * seq_len * width;
      const std::int64_t k_at = base + (shape.heads + kv_head) * head_dim, v_at = k_at + shape.kv_heads * head_dim;
      const float* x = qkv.as<float>();
      float* dx = dqkv.as<float>();
      for (std::int64_t t = 0; t < seq_len; ++t) {
        std::fill_n(dx + k_at + t * width, head_dim, 0.0f);
        std::fill_n(dx + v_at + t * width, head_dim, 0.0f);
      }
      float* z = weights.mine();
      float* dz = weight_gradients.mine();
      for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        for (std::int64_t first = 0; first < seq_len; first += kStrip) {
          const std::int64_t keys = std::min(seq_len, first + kStrip), queries = keys - first;
          const std::int64_t q_at = base + first * width + head * head_dim;
          const std::int64_t out_at = (sequence * seq_len + first) * out_width + head * head_dim;
          const float* grad = dout.as<float>() + out_at;
          sgemm(z, keys, x + q_at, width, false, x + k_at, width, true, queries, keys, head_dim, scale, 0);
          sgemm(dz, keys, grad, out_width, false, x + v_at, width, true, queries, keys, head_dim, 1, 0);
          for (std::int64_t i = 0; i < queries; ++i) {
            const float* grad_row = grad + i * out_width;
            const T* out_row = result + out_at + i * out_width;
            const float delta = sum_columns(head_dim, [=](auto at) { return at.load(grad_row) * at.load(out_row); });
            const float row_lse = lse.as<float>()[(sequence * shape.heads + head) * seq_len + first + i];
            softmax_backward(z + i * keys, dz + i * keys, row_lse, delta, scale, first + i + 1, keys);
          }
          sgemm(dx + v_at, width, z, keys, true, grad, out_width, false, keys, head_dim, queries, 1, 1);
          sgemm(dx + q_at, width, dz, keys, false, x + k_at, width, false, queries, head_dim, keys, 1, 0);
          sgemm(dx + k_at, width, dz, keys, true, x + q_at, width, false, keys, head_dim, queries, 1, 1);
        }
      }
    }
  });
}

}  // namespace routescope::cpu
