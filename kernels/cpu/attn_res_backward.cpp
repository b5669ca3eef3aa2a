// CPU: the part of an Attention Residuals read's gradient that cannot wait (MATH.md, "Gradients"), a row at a time.
// h is not kept but computed again from the sources. Per token with n completed sources: dx, n sources, p and dp
// in, dh and dp out, (n + 5) d floats; the second and third use of a source find it in the cache.
#include "kernels/backends.h"
#include "kernels/cpu/parts/per_thread.h"
#include "kernels/cpu/parts/read.h"
#include "kernels/cpu/parts/reduce.h"

namespace routescope::kernels::cpu {

namespace {

/// Parameter gradients of one chunk of tokens: du [d], dnorm_gain [d], dbias.
struct Partial {
  float* du;
  float* dnorm_gain;
  float* dbias;
  Partial(float* at, std::int64_t d) : du(at), dnorm_gain(at + d), dbias(at + 2 * d) {}
  static std::int64_t width(std::int64_t d) { return 2 * d + 1; }
};

/// From dx through x = h s_h gain, with h = sum_i alpha_i v_i: writes dh, adds to dnorm_gain.
void norm_backward(float* dh, float* dnorm_gain, const float* dx, float* h, float s_h, const float* gain,
                   const float* alpha, const ReadRow& v, std::int64_t d) {
  Vec along{};
  weighted_sums(
      v, d, [=](std::int64_t i) { return alpha[i]; },
      [&](auto at, Vec sum) {
        at.store(h, sum);
        along += at.load(dx) * at.load(gain) * sum;
      });
  const float back = s_h * s_h * s_h * sum_lanes(along) / static_cast<float>(d);
  for_columns(d, [=](auto at) {
    const Vec grad = s_h * at.load(dx), value = at.load(h);
    at.store(dnorm_gain, at.load(dnorm_gain) + grad * value);
    at.store(dh, grad * at.load(gain) - back * value);
  });
}

/// dlogit_i = alpha_i (<dh, v_i> - sum_j alpha_j <dh, v_j>)
void softmax_backward(float* dlogit, const float* dh, const float* alpha, const ReadRow& v, std::int64_t d) {
  dots(dlogit, dh, v, d);
  float mean = 0;
  for (std::int64_t i = 0; i < v.count(); ++i) mean += alpha[i] * dlogit[i];
  for (std::int64_t i = 0; i < v.count(); ++i) dlogit[i] = alpha[i] * (dlogit[i] - mean);
}

}  // namespace

void attn_res_backward(Tensor dh, Tensor dlogit, Tensor dp, const AttnResParamGrads& grads, Tensor dx,
                       const AttnResState& state, const AttnResSources& sources, const AttnResParams& params,
                       bool alpha_is_given, const Stream& stream) {
  const std::int64_t tokens = state.partial.shape[0], d = state.partial.shape[1];
  const auto n = static_cast<std::int64_t>(sources.values.size());
  Scratch scratch(stream);
  float* u = scratch.take<float>(static_cast<std::size_t>(d));
  float* partials = scratch.take<float>(static_cast<std::size_t>(kMaxPartials * Partial::width(d)));
  const PerThread h_rows(scratch, d);
  multiply_rows(u, params.query.as<float>(), params.key_gain.as<float>(), d);

  const auto row = [&](const Partial& partial, float* h, std::int64_t t) {
    const ReadRow v(sources, state, t);
    const float* alpha = state.alpha.as<float>() + t * (n + 1);
    const float* p = v.value(n);
    float* to_dh = dh.as<float>() + t * d;
    float* to_dp = dp.as<float>() + t * d;
    float* to_dlogit = dlogit.as<float>() + t * (n + 1);

    norm_backward(to_dh, partial.dnorm_gain, dx.as<float>() + t * d, h, state.h_inv_rms.as<float>()[t],
                  params.norm_gain.as<float>(), alpha, v, d);
    const float a = alpha[n];
    if (alpha_is_given) {
      for (std::int64_t i = 0; i <= n; ++i) to_dlogit[i] = 0;
      for_columns(d, [=](auto at) { at.store(to_dp, at.load(to_dp) + a * at.load(to_dh)); });
      return;
    }
    softmax_backward(to_dlogit, to_dh, alpha, v, d);
    *partial.dbias += to_dlogit[n];

    // du += sum_i dlogit_i s_i v_i;   dp += alpha dh + dlogit s (u - p s^2 <u, p> / d), where s <u, p> is the kept
    // score.
    const float s = v.inv_rms(n), along_u = to_dlogit[n] * s;
    const float back = along_u * s * state.score.as<float>()[t * (n + 1) + n] / static_cast<float>(d);
    weighted_sums(
        v, d, [&](std::int64_t i) { return to_dlogit[i] * v.inv_rms(i); },
        [&](auto at, Vec sum) {
          at.store(partial.du, at.load(partial.du) + sum);
          at.store(to_dp, at.load(to_dp) + a * at.load(to_dh) + along_u * at.load(u) - back * at.load(p));
        });
  };
  reduce_rows(
      tokens, Partial::width(d), partials,
      [&](float* at, std::int64_t begin, std::int64_t end) {
        const Partial partial(at, d);
        for (std::int64_t t = begin; t < end; ++t) row(partial, h_rows.mine(), t);
      },
      [&](std::int64_t j, float sum) {
        if (j < d) {
          grads.query.as<float>()[j] += sum * params.key_gain.as<float>()[j];
          grads.key_gain.as<float>()[j] += sum * params.query.as<float>()[j];
        } else if (j < 2 * d) {
          grads.norm_gain.as<float>()[j - d] += sum;
        } else if (grads.bias) {
          grads.bias.as<float>()[0] += sum;
        }
      });
}

}  // namespace routescope::kernels::cpu
