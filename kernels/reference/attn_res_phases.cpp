// Reference: the Attention Residuals read in two phases (MATH.md, "Cost").
//   phase one, for each read of a block, over the n completed sources:
//     score_i = s_i <u, v_i>,  lse = ln sum_i exp(score_i + B_i),  output = sum_i exp(score_i + B_i - lse) v_i
//   phase two, with the current source p and its logit l = s_p <u, p> + B_n + bias:
//     alpha_n = sigmoid(l - lse),  alpha_i = (1 - alpha_n) exp(score_i + B_i - lse),  h = output + alpha_n (p - output)
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/backends.h"

namespace routescope::kernels::reference {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double inverse_rms(const double* row, std::int64_t d, double eps) {
  double sum = 0;
  for (std::int64_t j = 0; j < d; ++j) sum += row[j] * row[j];
  return 1 / std::sqrt(sum / static_cast<double>(d) + eps);
}

/// <w * g, v>
double along_key(const AttnResParams& params, const double* v, std::int64_t d) {
  double sum = 0;
  for (std::int64_t j = 0; j < d; ++j) sum += params.query.as<double>()[j] * params.key_gain.as<double>()[j] * v[j];
  return sum;
}

double given_bias(const AttnResParams& params, std::int64_t source) {
  return params.logit_bias ? params.logit_bias.as<double>()[source] : 0.0;
}

double log_sum_exp(const std::vector<double>& logit) {
  const double largest = *std::max_element(logit.begin(), logit.end());
  if (largest == -kInfinity) return -kInfinity;
  double sum = 0;
  for (double value : logit) sum += std::exp(value - largest);
  return largest + std::log(sum);
}

/// exp(logit - lse), 0 where all sources are masked.
double share(double logit, double lse) {
  return lse == -kInfinity ? 0.0 : std::exp(logit - lse);
}

}  // namespace

void attn_res_prepare(std::span<const AttnResPrepared> reads, std::span<const AttnResParams> params,
                      const AttnResSources& sources, const Stream&) {
  const std::size_t n = sources.values.size();
  for (std::size_t r = 0; r < reads.size(); ++r) {
    const std::int64_t tokens = reads[r].output.shape[0], d = reads[r].output.shape[1];
    for (std::int64_t t = 0; t < tokens; ++t) {
      double* score = reads[r].score.as<double>() + t * static_cast<std::int64_t>(n + 1);
      std::vector<double> logit(n);
      for (std::size_t i = 0; i < n; ++i) {
        score[i] = sources.inv_rms[i].as<double>()[t] * along_key(params[r], sources.values[i].as<double>() + t * d, d);
        logit[i] = score[i] + given_bias(params[r], static_cast<std::int64_t>(i));
      }
      const double lse = log_sum_exp(logit);
      reads[r].lse.as<double>()[t] = lse;
      double* output = reads[r].output.as<double>() + t * d;
      std::fill(output, output + d, 0.0);
      for (std::size_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j < d; ++j)
          output[j] += share(logit[i], lse) * sources.values[i].as<double>()[t * d + j];
    }
  }
}

void attn_res_merge(Tensor x, const AttnResState& state, Tensor p_in, Tensor y, const AttnResPrepared& prepared,
                    const AttnResParams& params, const Stream&) {
  const std::int64_t tokens = state.partial.shape[0], d = state.partial.shape[1], n = state.alpha.shape[1] - 1;
  std::vector<double> h(static_cast<std::size_t>(d));
  for (std::int64_t t = 0; t < tokens; ++t) {
    double* p = state.partial.as<double>() + t * d;
    for (std::int64_t j = 0; j < d; ++j) {
      const double from_p = p_in ? p_in.as<double>()[t * d + j] : 0.0;
      const double from_y = y ? y.as<double>()[t * d + j] : 0.0;
      p[j] = from_p + from_y;
    }
    const double s = inverse_rms(p, d, params.eps);
    state.inv_rms.as<double>()[t] = s;

    double* score = state.score.as<double>() + t * (n + 1);
    double* alpha = state.alpha.as<double>() + t * (n + 1);
    score[n] = s * along_key(params, p, d);
    const double learned = params.bias ? params.bias.as<double>()[0] : 0.0;
    const double logit = score[n] + given_bias(params, n) + learned;
    const double lse = prepared.lse.as<double>()[t];
    const double current = 1 / (1 + std::exp(lse - logit)), rest = 1 / (1 + std::exp(logit - lse));
    for (std::int64_t i = 0; i < n; ++i) alpha[i] = rest * share(score[i] + given_bias(params, i), lse);
    alpha[n] = current;

    for (std::int64_t j = 0; j < d; ++j)
      h[static_cast<std::size_t>(j)] = rest * prepared.output.as<double>()[t * d + j] + current * p[j];
    const double s_h = inverse_rms(h.data(), d, params.eps);
    state.h_inv_rms.as<double>()[t] = s_h;
    for (std::int64_t j = 0; j < d; ++j)
      x.as<double>()[t * d + j] = h[static_cast<std::size_t>(j)] * s_h * params.norm_gain.as<double>()[j];
  }
}

}  // namespace routescope::kernels::reference
