// Reference: the Attention Residuals read and its gradient (MATH.md, "Residual stream and reads", "Gradients").
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/backends.h"

namespace routescope::kernels::reference {

namespace {

double inverse_rms(const std::vector<double>& x, double eps) {
  double sum = 0;
  for (double value : x) sum += value * value;
  return 1 / std::sqrt(sum / static_cast<double>(x.size()) + eps);
}

std::vector<double> row_of(const Tensor& t, std::int64_t token) {
  const double* begin = t.as<double>() + token * t.shape[1];
  return {begin, begin + t.shape[1]};
}

/// v_0 .. v_n of one token: the completed sources, then the current one.
std::vector<std::vector<double>> values_of(const AttnResSources& sources, const Tensor& partial, std::int64_t token) {
  std::vector<std::vector<double>> v;
  for (const Tensor& source : sources.values) v.push_back(row_of(source, token));
  v.push_back(row_of(partial, token));
  return v;
}

std::vector<double> routing_key(const Tensor& query, const Tensor& key_gain) {
  std::vector<double> u(static_cast<std::size_t>(query.numel()));
  for (std::size_t j = 0; j < u.size(); ++j) u[j] = query.as<double>()[j] * key_gain.as<double>()[j];
  return u;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t j = 0; j < a.size(); ++j) sum += a[j] * b[j];
  return sum;
}

}  // namespace

void attn_res_forward(Tensor x, const AttnResState& state, Tensor p_in, Tensor y, const AttnResSources& sources,
                      const AttnResParams& params, Tensor alpha_override, const Stream&) {
  const std::int64_t tokens = state.partial.shape[0], d = state.partial.shape[1];
  const std::size_t n = sources.values.size();
  const std::vector<double> u = routing_key(params.query, params.key_gain);
  for (std::int64_t t = 0; t < tokens; ++t) {
    // The partial first: a source may be the partial itself.
    double* p = state.partial.as<double>() + t * d;
    for (std::int64_t j = 0; j < d; ++j) {
      const double from_p = p_in ? p_in.as<double>()[t * d + j] : 0.0;
      const double from_y = y ? y.as<double>()[t * d + j] : 0.0;
      p[j] = from_p + from_y;
    }
    state.inv_rms.as<double>()[t] = inverse_rms(row_of(state.partial, t), params.eps);

    const auto v = values_of(sources, state.partial, t);
    double* score = state.score.as<double>() + t * static_cast<std::int64_t>(n + 1);
    double* alpha = state.alpha.as<double>() + t * static_cast<std::int64_t>(n + 1);
    std::vector<double> logit(n + 1);
    for (std::size_t i = 0; i <= n; ++i) {
      const double s = (i < n ? sources.inv_rms[i] : state.inv_rms).as<double>()[t];
      score[i] = s * dot(u, v[i]);
      logit[i] = score[i];
      if (params.logit_bias) logit[i] += params.logit_bias.as<double>()[i];
      if (params.bias && i == n) logit[i] += params.bias.as<double>()[0];
    }
    const double largest = *std::max_element(logit.begin(), logit.end());
    double sum = 0;
    for (double value : logit) sum += std::exp(value - largest);
    // The given weights may be state.alpha itself.
    for (std::size_t i = 0; i <= n; ++i)
      alpha[i] = alpha_override
                     ? alpha_override.as<double>()[t * static_cast<std::int64_t>(n + 1) + static_cast<std::int64_t>(i)]
                     : std::exp(logit[i] - largest) / sum;

    std::vector<double> h(static_cast<std::size_t>(d), 0.0);
    for (std::size_t i = 0; i <= n; ++i)
      for (std::size_t j = 0; j < h.size(); ++j) h[j] += alpha[i] * v[i][j];
    const double s_h = inverse_rms(h, params.eps);
    state.h_inv_rms.as<double>()[t] = s_h;
    for (std::size_t j = 0; j < h.size(); ++j)
      x.as<double>()[t * d + static_cast<std::int64_t>(j)] = h[j] * s_h * params.norm_gain.as<double>()[j];
  }
}

void attn_res_backward(Tensor dh, Tensor dlogit, Tensor dp, const AttnResParamGrads& grads, Tensor dx,
                       const AttnResState& state, const AttnResSources& sources, const AttnResParams& params,
                       bool alpha_is_given, const Stream&) {
  const std::int64_t tokens = state.partial.shape[0], d = state.partial.shape[1];
  const std::size_t n = sources.values.size();
  const std::vector<double> u = routing_key(params.query, params.key_gain);
  std::vector<double> du(u.size(), 0.0);
  for (std::int64_t t = 0; t < tokens; ++t) {
    const auto v = values_of(sources, state.partial, t);
    const std::vector<double> grad_x = row_of(dx, t), alpha = row_of(state.alpha, t);

    // Through the norm: h is computed again rather than kept.
    std::vector<double> h(u.size(), 0.0), grad_h(u.size());
    for (std::size_t i = 0; i <= n; ++i)
      for (std::size_t j = 0; j < h.size(); ++j) h[j] += alpha[i] * v[i][j];
    const double s_h = state.h_inv_rms.as<double>()[t];
    for (std::size_t j = 0; j < h.size(); ++j) {
      grads.norm_gain.as<double>()[j] += grad_x[j] * h[j] * s_h;
      grad_h[j] = grad_x[j] * params.norm_gain.as<double>()[j];
    }
    const double along = dot(grad_h, h);
    for (std::size_t j = 0; j < h.size(); ++j)
      grad_h[j] = s_h * (grad_h[j] - h[j] * s_h * s_h * along / static_cast<double>(d));

    // Through the softmax.
    std::vector<double> dalpha(n + 1), grad_logit(n + 1, 0.0);
    double mean = 0;
    for (std::size_t i = 0; i <= n; ++i) {
      dalpha[i] = dot(grad_h, v[i]);
      mean += alpha[i] * dalpha[i];
    }
    if (!alpha_is_given)
      for (std::size_t i = 0; i <= n; ++i) grad_logit[i] = alpha[i] * (dalpha[i] - mean);

    for (std::size_t i = 0; i <= n; ++i) {
      const double s = (i < n ? sources.inv_rms[i] : state.inv_rms).as<double>()[t];
      for (std::size_t j = 0; j < u.size(); ++j) du[j] += grad_logit[i] * s * v[i][j];
    }
    if (grads.bias) grads.bias.as<double>()[0] += grad_logit[n];

    const double s_p = state.inv_rms.as<double>()[t], u_p = dot(u, v[n]);
    for (std::size_t j = 0; j < h.size(); ++j) {
      dp.as<double>()[t * d + static_cast<std::int64_t>(j)] +=
          alpha[n] * grad_h[j] + grad_logit[n] * s_p * (u[j] - v[n][j] * s_p * s_p * u_p / static_cast<double>(d));
      dh.as<double>()[t * d + static_cast<std::int64_t>(j)] = grad_h[j];
    }
    std::copy(grad_logit.begin(), grad_logit.end(), dlogit.as<double>() + t * static_cast<std::int64_t>(n + 1));
  }
  for (std::size_t j = 0; j < u.size(); ++j) {
    grads.query.as<double>()[j] += du[j] * params.key_gain.as<double>()[j];
    grads.key_gain.as<double>()[j] += du[j] * params.query.as<double>()[j];
  }
}

void attn_res_backward_sources(std::span<const Tensor> dsources, std::span<const AttnResDeferred> reads,
                               const AttnResSources& sources, const Stream&) {
  for (const AttnResDeferred& read : reads) {
    const std::vector<double> u = routing_key(read.query, read.key_gain);
    for (std::size_t i = 0; i < dsources.size(); ++i) {
      const std::int64_t tokens = dsources[i].shape[0], d = dsources[i].shape[1];
      for (std::int64_t t = 0; t < tokens; ++t) {
        const std::int64_t at = t * read.alpha.shape[1] + static_cast<std::int64_t>(i);
        const double alpha = read.alpha.as<double>()[at], dlogit = read.dlogit.as<double>()[at];
        const double s = sources.inv_rms[i].as<double>()[t];
        const std::vector<double> v = row_of(sources.values[i], t);
        const double u_v = dot(u, v);
        for (std::size_t j = 0; j < u.size(); ++j) {
          const std::int64_t to = t * d + static_cast<std::int64_t>(j);
          dsources[i].as<double>()[to] +=
              alpha * read.dh.as<double>()[to] + dlogit * s * (u[j] - v[j] * s * s * u_v / static_cast<double>(d));
        }
      }
    }
  }
}

void routing_statistics(Tensor sums, Tensor entropy, Tensor alpha, std::span<const Tensor> inv_rms, const Stream&) {
  const std::int64_t tokens = alpha.shape[0], columns = alpha.shape[1];
  double* out = sums.as<double>();
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t i = 0; i < columns; ++i) {
      const double a = alpha.as<double>()[t * columns + i];
      out[i] += a;
      out[columns + i] += a * a;
      out[2 * columns + i] += 1 / inv_rms[static_cast<std::size_t>(i)].as<double>()[t];
      if (a > 0) entropy.as<double>()[0] -= a * std::log(a);
    }
  }
}

void contribution_statistics(Tensor sums, Tensor alpha, std::span<const Tensor> values, const Stream&) {
  const std::int64_t tokens = alpha.shape[0], columns = alpha.shape[1];
  for (std::int64_t t = 0; t < tokens; ++t) {
    const double* weight = alpha.as<double>() + t * columns;
    std::vector<std::vector<double>> v;
    for (const Tensor& value : values) v.push_back(row_of(value, t));
    std::vector<double> h(v.front().size(), 0.0), length;
    double lengths = 0;
    for (std::size_t i = 0; i < v.size(); ++i) {
      for (std::size_t j = 0; j < h.size(); ++j) h[j] += weight[i] * v[i][j];
      length.push_back(std::fabs(weight[i]) * std::sqrt(dot(v[i], v[i])));
      lengths += length[i];
    }
    const double square = dot(h, h);
    for (std::size_t i = 0; i < v.size(); ++i) {
      sums.as<double>()[i] += square > 0 ? weight[i] * dot(v[i], h) / square : weight[i];
      sums.as<double>()[v.size() + i] += lengths > 0 ? length[i] / lengths : weight[i];
    }
  }
}

}  // namespace routescope::kernels::reference
