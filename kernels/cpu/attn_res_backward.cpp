// CPU: the part of an Attention Residuals read's gradient that cannot wait (MATH.md, "Gradients"), a row at a time.
// h is computed again from the sources rather than kept. Per token with n completed sources: dx, n sources, p and dp
// in, dh and dp out, (n + 5) d floats; the sources' second and third use finds them in the cache.
#include "kernels/backends.h"
#include "kernels/cpu/read.h"
#include "kernels/cpu/reduce.h"

namespace routescope::cpu {

namespace {

/// Parameter gradients of one chunk of tokens: du [d], dnorm_gain [d], dbias.
struct Partial {
  float* du;
  float* dnorm_gain;
  float* dbias;
  Partial(float* at, std::int64_t d) : du(at), dnorm_gain(at + d), dbias(at + 2 * d) {}
  static std::int64_t width(std::int64_t d) { return 2 * d + 1; }
};

/// From dx through x = h s_h gain: writes dh, adds to dnorm_gain.
void norm_backward(float* dh, float* dnorm_gain, const float* dx, const float* h, float s_h, const float* gain,
                   std::int64_t d) {
  const float along = sum_over(d, [=](std::int64_t j) { return dx[j] * gain[j] * h[j]; });
  const float back = s_h * s_h * s_h * along / static_cast<float>(d);
#pragma omp simd
  for (std::int64_t j = 0; j < d; ++j) {
    dnorm_gain[j] += dx[j] * h[j] * s_h;
    dh[j] = s_h * dx[j] * gain[j] - back * h[j];
  }
}

/// dlogit_i = alpha_i (<dh, v_i> - sum_j alpha_j <dh, v_j>)
void softmax_backward(float* dlogit, const float* dh, const float* alpha, const ReadRow& v, std::int64_t d) {
  float mean = 0;
  for (std::int64_t i = 0; i < v.count(); ++i) {
    dlogit[i] = dot(dh, v.value(i), d);
    mean += alpha[i] * dlogit[i];
  }
  for (std::int64_t i = 0; i < v.count(); ++i) dlogit[i] = alpha[i] * (dlogit[i] - mean);
}

/// du += sum_i dlogit_i s_i v_i
void add_key_gradient(float* du, const float* dlogit, const ReadRow& v, std::int64_t d) {
  for (std::int64_t begin = 0; begin < d; begin += kLanes) {
    const std::int64_t width = std::min<std::int64_t>(kLanes, d - begin);
    alignas(64) float sum[kLanes] = {};
    for (std::int64_t i = 0; i < v.count(); ++i) {
      const float* row = v.value(i) + begin;
      const float a = dlogit[i] * v.inv_rms(i);
      if (width == kLanes) {
#pragma omp simd
        for (int l = 0; l < kLanes; ++l) sum[l] += a * row[l];
      } else {
        for (std::int64_t l = 0; l < width; ++l) sum[l] += a * row[l];
      }
    }
    for (std::int64_t l = 0; l < width; ++l) du[begin + l] += sum[l];
  }
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
  PerThreadRows h_rows(scratch, d);
  multiply_rows(u, params.query.as<float>(), params.key_gain.as<float>(), d);

  const auto row = [&](const Partial& partial, float* h, std::int64_t t) {
    const ReadRow v(sources, state, t);
    const float* alpha = state.alpha.as<float>() + t * (n + 1);
    const float* p = v.value(n);
    float* to_dh = dh.as<float>() + t * d;
    float* to_dp = dp.as<float>() + t * d;
    float* to_dlogit = dlogit.as<float>() + t * (n + 1);

    weighted_sum(h, alpha, v, d);
    norm_backward(to_dh, partial.dnorm_gain, dx.as<float>() + t * d, h, state.h_inv_rms.as<float>()[t],
                  params.norm_gain.as<float>(), d);
    const float a = alpha[n];
    if (alpha_is_given) {
      for (std::int64_t i = 0; i <= n; ++i) to_dlogit[i] = 0;
#pragma omp simd
      for (std::int64_t j = 0; j < d; ++j) to_dp[j] += a * to_dh[j];
      return;
    }
    softmax_backward(to_dlogit, to_dh, alpha, v, d);
    add_key_gradient(partial.du, to_dlogit, v, d);
    *partial.dbias += to_dlogit[n];

    // dp += alpha dh + dlogit s (u - p s^2 <u, p> / d), where s <u, p> is the kept score.
    const float s = v.inv_rms(n), along_u = to_dlogit[n] * s;
    const float back = along_u * s * state.score.as<float>()[t * (n + 1) + n] / static_cast<float>(d);
#pragma omp simd
    for (std::int64_t j = 0; j < d; ++j) to_dp[j] += a * to_dh[j] + along_u * u[j] - back * p[j];
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

}  // namespace routescope::cpu
