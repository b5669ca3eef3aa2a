// CPU: the fused Attention Residuals read (MATH.md, "State and reads"), a row at a time:
//   p = p_in + y,  s_i = 1 / rms(v_i),  alpha = softmax_i(s_i <u, v_i> + B_i),  h = sum_i alpha_i v_i,  x = rms_norm(h)
//   gain
// Each source's row is read from memory once; its second use (h) finds it in the cache. Bytes a token with n completed
// sources: y, p and n sources in, p and x out, (n + 4) d floats.
#include <omp.h>

#include <cmath>
#include <limits>

#include "kernels/backends.h"
#include "kernels/cpu/operand.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/read.h"
#include "kernels/cpu/residual.h"
#include "kernels/cpu/rows.h"

namespace routescope::cpu {

namespace {

/// logits [count] become softmax(logits). At least one is finite; -inf gets weight 0.
void softmax_in_place(float* logits, std::int64_t count) {
  float largest = -std::numeric_limits<float>::infinity();
  for (std::int64_t i = 0; i < count; ++i) largest = logits[i] > largest ? logits[i] : largest;
  float sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += logits[i] = exp_f32(logits[i] - largest);
  for (std::int64_t i = 0; i < count; ++i) logits[i] /= sum;
}

}  // namespace

void attn_res_forward(Tensor x, const AttnResState& state, Tensor p_in, Tensor y, const AttnResSources& sources,
                      const AttnResParams& params, Tensor alpha_override, const Stream& stream) {
  const std::int64_t tokens = state.partial.shape[0], d = state.partial.shape[1];
  const auto n = static_cast<std::int64_t>(sources.values.size());
  Scratch scratch(stream);
  float* u = scratch.take<float>(static_cast<std::size_t>(d));
  PerThreadRows h_rows(scratch, d);
  multiply_rows(u, params.query.as<float>(), params.key_gain.as<float>(), d);
  const float* norm_gain = params.norm_gain.as<float>();

  with_operand(x, [&]<class T>(T* out) {
    parallel_for(row_chunks(tokens, d * (n + 4)), [&](std::int64_t, std::int64_t begin, std::int64_t end) {
      float* h = h_rows.mine();
      for (std::int64_t t = begin; t < end; ++t) {
        // The partial is stored before any source is read: a source may be the partial.
        float* p = state.partial.as<float>() + t * d;
        state.inv_rms.as<float>()[t] =
            inverse_rms(add_rows(p, row_or_null(p_in, t), row_or_null(y, t), d), d, params.eps);
        const ReadRow v(sources, state, t);

        float* score = state.score.as<float>() + t * (n + 1);
        float* alpha = state.alpha.as<float>() + t * (n + 1);
        for (std::int64_t i = 0; i <= n; ++i) {
          score[i] = v.inv_rms(i) * dot(u, v.value(i), d);
          alpha[i] = score[i] + (params.logit_bias ? params.logit_bias.as<float>()[i] : 0.0f);
        }
        if (params.bias) alpha[n] += params.bias.as<float>()[0];
        softmax_in_place(alpha, n + 1);
        if (alpha_override)
          for (std::int64_t i = 0; i <= n; ++i) alpha[i] = alpha_override.as<float>()[t * (n + 1) + i];

        const float s_h = inverse_rms(weighted_sum(h, alpha, v, d), d, params.eps);
        state.h_inv_rms.as<float>()[t] = s_h;
        T* to = out + t * d;
#pragma omp simd
        for (std::int64_t j = 0; j < d; ++j) to[j] = from_float<T>(h[j] * s_h * norm_gain[j]);
      }
    });
  });
}

}  // namespace routescope::cpu
