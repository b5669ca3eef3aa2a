// CPU: causal grouped-query attention, a strip of queries of one head at a time:
//   z = q k^T / sqrt(head_dim),  lse = log sum exp z,  out = softmax(z) v
// A strip sees the keys up to its last query; those after a row's own position get weight 0.
#include "kernels/cpu/attention.h"

#include <algorithm>
#include <cmath>

#include "kernels/backends.h"
#include "kernels/cpu/exp.h"
#include "kernels/cpu/operand.h"
#include "kernels/cpu/per_thread.h"

namespace routescope::cpu {

namespace {

/// z [visible] become exp(z - max) and z [visible, keys) become 0; returns log sum exp and the factor 1 / sum.
struct Softmax {
  float lse;
  float factor;
};

Softmax exponentiate(float* z, std::int64_t visible, std::int64_t keys) {
  const float largest = max_columns(z, visible);
  const float sum = sum_columns(visible, [=](auto at) {
    const Vec w = exp(at.load(z) - largest);
    at.store(z, w);
    return w;
  });
  std::fill(z + visible, z + keys, 0.0f);
  return {largest + std::log(sum), 1.0f / sum};
}

}  // namespace

void attention_forward(Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape, const Stream& stream) {
  const std::int64_t width = shape.packed_width(), head_dim = shape.head_dim, seq_len = shape.seq_len;
  const std::int64_t group = shape.heads / shape.kv_heads, strips = (seq_len + kStrip - 1) / kStrip;
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  Scratch scratch(stream);
  const PerThread weights(scratch, kStrip * seq_len);
  const PerThread results(scratch, kStrip * head_dim);
  const std::int64_t tasks = shape.batch * shape.heads * strips;
  with_operand(out, [&]<class T>(T* result) {
#pragma omp parallel for schedule(dynamic, 1)
    for (std::int64_t task = 0; task < tasks; ++task) {
      // The longest strips first, which evens out the threads' ends.
      const std::int64_t strip = strips - 1 - task / (shape.batch * shape.heads);
      const std::int64_t head = task % shape.heads, sequence = task / shape.heads % shape.batch;
      const std::int64_t first = strip * kStrip, keys = std::min(seq_len, first + kStrip), queries = keys - first;
      const float* rows = qkv.as<float>() + sequence * seq_len * width;
      const float* q = rows + first * width + head * head_dim;
      const float* k = rows + (shape.heads + head / group) * head_dim;
      const float* v = k + shape.kv_heads * head_dim;
      float* z = weights.mine();
      float* o = results.mine();

      sgemm(z, keys, q, width, false, k, width, true, queries, keys, head_dim, scale, 0);
      float factor[kStrip];
      for (std::int64_t i = 0; i < queries; ++i) {
        const Softmax softmax = exponentiate(z + i * keys, first + i + 1, keys);
        lse.as<float>()[(sequence * shape.heads + head) * seq_len + first + i] = softmax.lse;
        factor[i] = softmax.factor;
      }
      sgemm(o, head_dim, z, keys, false, v, width, false, queries, head_dim, keys, 1, 0);
      for (std::int64_t i = 0; i < queries; ++i) {
        T* to = result + ((sequence * seq_len + first + i) * shape.heads + head) * head_dim;
        for_columns(head_dim, [&](auto at) { at.store(to, at.load(o + i * head_dim) * factor[i]); });
      }
    }
  });
}

}  // namespace routescope::cpu
