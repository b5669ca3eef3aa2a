// CPU: per-head RMSNorm of q and k with a gain, then rotary embedding by rotation of halves.
//   x = q s gain;   out[i] = x[i] cos - x[i+half] sin,   out[i+half] = x[i+half] cos + x[i] sin
// A token's angles are computed once and serve all its heads.
#include <omp.h>

#include <cstring>

#include "kernels/backends.h"
#include "kernels/cpu/operand.h"
#include "kernels/cpu/read.h"
#include "kernels/cpu/reduce.h"
#include "kernels/cpu/residual.h"
#include "kernels/cpu/rotary.h"

namespace routescope::cpu {

namespace {

double* take_frequencies(Scratch& scratch, std::int64_t head_dim, double theta) {
  auto* frequency = scratch.take<double>(static_cast<std::size_t>(head_dim / 2));
  rotary_frequencies(frequency, head_dim, theta);
  return frequency;
}

}  // namespace

void qk_norm_rope_forward(Tensor out, Tensor qkv, Tensor q_gain, Tensor k_gain, const AttentionShape& shape,
                          double theta, double eps, const Stream& stream) {
  const std::int64_t width = shape.packed_width(), head_dim = shape.head_dim, half = head_dim / 2;
  Scratch scratch(stream);
  const double* frequency = take_frequencies(scratch, head_dim, theta);
  PerThreadRows angles(scratch, head_dim);
  parallel_for(row_chunks(shape.tokens(), width), [&](std::int64_t, std::int64_t begin, std::int64_t end) {
    float* cosine = angles.mine();
    float* sine = cosine + half;
    for (std::int64_t t = begin; t < end; ++t) {
      rotary_angles(cosine, sine, frequency, half, t % shape.seq_len);
      for (std::int64_t head = 0; head < shape.heads + shape.kv_heads; ++head) {
        const float* x = qkv.as<float>() + t * width + head * head_dim;
        float* y = out.as<float>() + t * width + head * head_dim;
        const float* gain = (head < shape.heads ? q_gain : k_gain).as<float>();
        const float s = inverse_rms(sum_of_squares(x, head_dim), head_dim, eps);
#pragma omp simd
        for (std::int64_t i = 0; i < half; ++i) {
          const float low = x[i] * s * gain[i], high = x[i + half] * s * gain[i + half];
          y[i] = low * cosine[i] - high * sine[i];
          y[i + half] = high * cosine[i] + low * sine[i];
        }
      }
      const std::int64_t values = (shape.heads + shape.kv_heads) * head_dim;
      if (out.data != qkv.data)
        std::memcpy(out.as<float>() + t * width + values, qkv.as<float>() + t * width + values,
                    static_cast<std::size_t>(shape.kv_heads * head_dim) * sizeof(float));
    }
  });
}

void qk_norm_rope_backward(Tensor dqkv, Tensor dq_gain, Tensor dk_gain, Tensor dout, Tensor qkv, Tensor q_gain,
                           Tensor k_gain, const AttentionShape& shape, double theta, double eps, const Stream& stream) {
  const std::int64_t width = shape.packed_width(), head_dim = shape.head_dim, half = head_dim / 2;
  Scratch scratch(stream);
  const double* frequency = take_frequencies(scratch, head_dim, theta);
  float* partials = scratch.take<float>(static_cast<std::size_t>(kMaxPartials * 2 * head_dim));
  PerThreadRows rows(scratch, 2 * head_dim);
  with_operand(dqkv, [&]<class T>(T* gradient) {
    // dgain: the chunk's gradient of q_gain, then of k_gain.
    const auto token = [&](float* dgain, std::int64_t t) {
      float* cosine = rows.mine();
      float* sine = cosine + half;
      float* turned = sine + half;  // the head's gradient, rotated back
      rotary_angles(cosine, sine, frequency, half, t % shape.seq_len);
      for (std::int64_t head = 0; head < shape.heads + shape.kv_heads; ++head) {
        const bool is_query = head < shape.heads;
        const float* x = qkv.as<float>() + t * width + head * head_dim;
        const float* dy = dout.as<float>() + t * width + head * head_dim;
        T* dx = gradient + t * width + head * head_dim;
        const float* gain = (is_query ? q_gain : k_gain).as<float>();
        float* to_gain = dgain + (is_query ? 0 : head_dim);
        const float s = inverse_rms(sum_of_squares(x, head_dim), head_dim, eps);
#pragma omp simd
        for (std::int64_t i = 0; i < half; ++i) {
          turned[i] = dy[i] * cosine[i] + dy[i + half] * sine[i];
          turned[i + half] = dy[i + half] * cosine[i] - dy[i] * sine[i];
        }
        const float along = sum_over(head_dim, [=](std::int64_t i) { return turned[i] * gain[i] * x[i]; });
        const float back = s * s * s * along / static_cast<float>(head_dim);
#pragma omp simd
        for (std::int64_t i = 0; i < head_dim; ++i) {
          to_gain[i] += turned[i] * x[i] * s;
          dx[i] = from_float<T>(s * turned[i] * gain[i] - back * x[i]);
        }
      }
      const std::int64_t values = t * width + (shape.heads + shape.kv_heads) * head_dim;
#pragma omp simd
      for (std::int64_t i = 0; i < shape.kv_heads * head_dim; ++i)
        gradient[values + i] = from_float<T>(dout.as<float>()[values + i]);
    };
    reduce_rows(
        shape.tokens(), 2 * head_dim, partials,
        [&](float* dgain, std::int64_t begin, std::int64_t end) {
          for (std::int64_t t = begin; t < end; ++t) token(dgain, t);
        },
        [&](std::int64_t j, float sum) {
          if (j < head_dim) {
            dq_gain.as<float>()[j] += sum;
          } else {
            dk_gain.as<float>()[j - head_dim] += sum;
          }
        });
  });
}

}  // namespace routescope::cpu
