// CPU: the fused Attention Residuals read (MATH.md, "Residual stream and reads"), a row at a time:
//   p = p_in + y,  s_i = 1 / rms(v_i),  alpha = softmax_i(s_i <u, v_i> + B_i),  h = sum_i alpha_i v_i,
//   x = rms_norm(h) gain
// Each source's row is read from memory once; its second use (h) finds it in the cache. Bytes a token with n completed
// sources: y, p and n sources in, p and x out, (n + 4) d floats.
#include <algorithm>

#include "kernels/backends.h"
#include "kernels/cpu/parts/exp.h"
#include "kernels/cpu/parts/operand.h"
#include "kernels/cpu/parts/parallel.h"
#include "kernels/cpu/parts/per_thread.h"
#include "kernels/cpu/parts/read.h"
#include "kernels/cpu/parts/residual.h"

namespace routescope::kernels::cpu {

namespace {

/// Replaces logits [count] by softmax(logits). At least one is finite; -inf gets weight 0.
void softmax_in_place(float* logits, std::int64_t count) {
  const float largest = *std::max_element(logits, logits + count);
  float sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += logits[i] = exp(logits[i] - largest);
  for (std::int64_t i = 0; i < count; ++i) logits[i] /= sum;
}

}  // namespace

void attn_res_forward(Tensor x, const AttnResState& state, Tensor p_in, Tensor y, const AttnResSources& sources,
                      const AttnResParams& params, Tensor alpha_override, const Stream& stream) {
  const std::int64_t tokens = state.partial.shape[0], d = state.partial.shape[1];
  const auto n = static_cast<std::int64_t>(sources.values.size());
  Scratch scratch(stream);
  float* u = scratch.take<float>(static_cast<std::size_t>(d));
  const PerThread h_rows(scratch, d);
  multiply_rows(u, params.query.as<float>(), params.key_gain.as<float>(), d);
  const float* norm_gain = params.norm_gain.as<float>();
  const float* logit_bias = params.logit_bias.as<float>();
  const float bias = params.bias ? params.bias.as<float>()[0] : 0.0f;

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
        dots(score, u, v, d);
        for (std::int64_t i = 0; i <= n; ++i) score[i] *= v.inv_rms(i);
        if (alpha_override) {
          std::copy_n(alpha_override.as<float>() + t * (n + 1), n + 1, alpha);
        } else {
          for (std::int64_t i = 0; i <= n; ++i)
            alpha[i] = score[i] + (logit_bias ? logit_bias[i] : 0.0f) + (i == n ? bias : 0.0f);
          softmax_in_place(alpha, n + 1);
        }

        Vec squares{};
        weighted_sums(
            v, d, [=](std::int64_t i) { return alpha[i]; },
            [&](auto at, Vec sum) {
              at.store(h, sum);
              squares += sum * sum;
            });
        const float s_h = inverse_rms(sum_lanes(squares), d, params.eps);
        state.h_inv_rms.as<float>()[t] = s_h;
        T* to = out + t * d;
        for_columns(d, [=](auto at) { at.store(to, at.load(h) * s_h * at.load(norm_gain)); });
      }
    });
  });
}

}  // namespace routescope::kernels::cpu
