// CPU: residual addition and RMSNorm, a row at a time.
//   p = p_in + y,  s = (mean(p^2) + eps)^(-1/2),  x = p s gain;  per row p_in and y in, p and x out: 4 d floats
//   dp += s (g - p s^2 <g, p> / d)  with  g = dx gain;   dgain += sum over tokens of dx p s
#include "kernels/backends.h"
#include "kernels/cpu/parts/operand.h"
#include "kernels/cpu/parts/reduce.h"
#include "kernels/cpu/parts/residual.h"

namespace routescope::kernels::cpu {

void add_rms_norm_forward(Tensor x, Tensor p, Tensor inv_rms, Tensor p_in, Tensor y, Tensor gain, double eps,
                          const Stream&) {
  const std::int64_t tokens = p.shape[0], d = p.shape[1];
  const float* g = gain.as<float>();
  with_operand(x, [&]<class T>(T* out) {
    parallel_for(row_chunks(tokens, d), [&](std::int64_t, std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        float* row = p.as<float>() + t * d;
        const float s = inverse_rms(add_rows(row, row_or_null(p_in, t), row_or_null(y, t), d), d, eps);
        inv_rms.as<float>()[t] = s;
        T* to = out + t * d;
        for_columns(d, [=](auto at) { at.store(to, at.load(row) * s * at.load(g)); });
      }
    });
  });
}

void add_rms_norm_backward(Tensor dp, Tensor dgain, Tensor dx, Tensor p, Tensor inv_rms, Tensor gain,
                           const Stream& stream) {
  const std::int64_t tokens = p.shape[0], d = p.shape[1];
  const float* g = gain.as<float>();
  Scratch scratch(stream);
  float* partials = scratch.take<float>(static_cast<std::size_t>(kMaxPartials * d));
  reduce_rows(
      tokens, d, partials,
      [&](float* partial, std::int64_t begin, std::int64_t end) {
        for (std::int64_t t = begin; t < end; ++t) {
          const float* row = p.as<float>() + t * d;
          const float* grad = dx.as<float>() + t * d;
          float* out = dp.as<float>() + t * d;
          const float s = inv_rms.as<float>()[t];
          const float along = sum_columns(d, [=](auto at) { return at.load(grad) * at.load(g) * at.load(row); });
          const float back = s * s * s * along / static_cast<float>(d);
          for_columns(d, [=](auto at) {
            const Vec scaled = s * at.load(grad), value = at.load(row);
            at.store(partial, at.load(partial) + scaled * value);
            at.store(out, at.load(out) + scaled * at.load(g) - back * value);
          });
        }
      },
      [&](std::int64_t j, float sum) { dgain.as<float>()[j] += sum; });
}

}  // namespace routescope::kernels::cpu
