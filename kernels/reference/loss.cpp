// Reference: softmax cross-entropy and the comparison of two predictions.
//   nll = log sum exp z - z_target,   dz = grad_scale (softmax(z) - onehot(target)),   KL(p || q) = sum p (ln p - ln q)
#include <algorithm>
#include <cmath>

#include "kernels/backends.h"

namespace routescope::kernels::reference {

namespace {

double log_sum_exp(const double* z, std::int64_t n) {
  const double largest = *std::max_element(z, z + n);
  double sum = 0;
  for (std::int64_t j = 0; j < n; ++j) sum += std::exp(z[j] - largest);
  return largest + std::log(sum);
}

}  // namespace

void cross_entropy(Tensor nll, Tensor dlogits, Tensor logits, Tensor targets, double grad_scale, const Stream&) {
  const std::int64_t tokens = logits.shape[0], vocab = logits.shape[1];
  for (std::int64_t t = 0; t < tokens; ++t) {
    const std::int32_t target = targets.as<std::int32_t>()[t];
    const double* z = logits.as<double>() + t * vocab;
    const double lse = log_sum_exp(z, vocab);
    nll.as<double>()[t] = target < 0 ? 0 : lse - z[target];
    if (!dlogits) continue;
    double* dz = dlogits.as<double>() + t * vocab;
    for (std::int64_t j = 0; j < vocab; ++j)
      dz[j] = target < 0 ? 0 : grad_scale * (std::exp(z[j] - lse) - (j == target ? 1 : 0));
  }
}

void compare_logits(Tensor kl, Tensor agree, Tensor intact, Tensor ablated, const Stream&) {
  const std::int64_t tokens = intact.shape[0], vocab = intact.shape[1];
  for (std::int64_t t = 0; t < tokens; ++t) {
    const double* p = intact.as<double>() + t * vocab;
    const double* q = ablated.as<double>() + t * vocab;
    const double lse_p = log_sum_exp(p, vocab), lse_q = log_sum_exp(q, vocab);
    double sum = 0;
    for (std::int64_t j = 0; j < vocab; ++j) {
      const double log_p = p[j] - lse_p, log_q = q[j] - lse_q;
      sum += std::exp(log_p) * (log_p - log_q);
    }
    kl.as<double>()[t] = sum;
    agree.as<double>()[t] = std::max_element(p, p + vocab) - p == std::max_element(q, q + vocab) - q ? 1 : 0;
  }
}

void accumulate_loss(Tensor total, Tensor nll, const Stream&) {
  double sum = 0;
  for (const double value : nll.span<double>()) sum += value;
  total.as<double>()[0] += sum;
}

}  // namespace routescope::kernels::reference
