// CPU: per-head RMSNorm of q and k with a gain, then rotary embedding by rotation of halves.
//   x = q s gain;   out[i] = x[i] cos - x[i+half] sin,   out[i+half] = x[i+half] cos + x[i] sin
// A token's angles are computed once and serve all its heads.
#include <cstring>

#include "kernels/backends.h"
#include "kernels/cpu/parts/operand.h"
#include "kernels/cpu/parts/per_thread.h"
#include "kernels/cpu/parts/reduce.h"
#include "kernels/cpu/parts/residual.h"
#include "kernels/cpu/parts/rotary.h"

namespace routescope::kernels::cpu {

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
  const PerThread angles(scratch, head_dim);
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
        for_columns(half, [=](auto at) {
          const Vec c = at.load(cosine), sn = at.load(sine);
          const Vec low = at.load(x) * s * at.load(gain), high = at.load(x + half) * s * at.load(gain + half);
          at.store(y, low * c - high * sn);
          at.store(y + half, high * c + low * sn);
        });
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
  const PerThread rows(scratch, 2 * head_dim);
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
        for_columns(half, [=](auto at) {
          const Vec c = at.load(cosine), sn = at.load(sine), low = at.load(dy), high = at.load(dy + half);
          at.store(turned, low * c + high * sn);
          at.store(turned + half, high * c - low * sn);
        });
        const float along =
            sum_columns(head_dim, [=](auto at) { return at.load(turned) * at.load(gain) * at.load(x); });
        const float back = s * s * s * along / static_cast<float>(head_dim);
        for_columns(head_dim, [=](auto at) {
          const Vec scaled = s * at.load(turned), value = at.load(x);
          at.store(to_gain, at.load(to_gain) + scaled * value);
          at.store(dx, scaled * at.load(gain) - back * value);
        });
      }
      const std::int64_t values = t * width + (shape.heads + shape.kv_heads) * head_dim;
      const float* from = dout.as<float>() + values;
      T* to = gradient + values;
      for_columns(shape.kv_heads * head_dim, [=](auto at) { at.store(to, at.load(from)); });
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

}  // namespace routescope::kernels::cpu
