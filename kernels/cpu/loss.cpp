// CPU: softmax cross-entropy and the comparison of two predictions.
//   nll = log sum exp z - z_target,   dz = grad_scale (softmax(z) - onehot(target)),   KL(p || q) = sum p (ln p - ln q)
// A row of logits (up to 600 KB) is read once for its maximum, once for the sum of exponentials, once for the gradient;
// the last two come from the cache.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/backends.h"
#include "kernels/cpu/operand.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/rows.h"

namespace routescope::cpu {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

float row_max(const float* z, std::int64_t n) {
  return max_over(n, -kInfinity, [=](std::int64_t j) { return z[j]; });
}

/// sum_j term(j) over a whole vocabulary: runs in float, their total in double.
template <class Term>
double long_sum(std::int64_t n, Term&& term) {
  constexpr std::int64_t kRun = 4096;
  double sum = 0;
  for (std::int64_t begin = 0; begin < n; begin += kRun)
    sum += static_cast<double>(sum_over(std::min(kRun, n - begin), [&](std::int64_t j) { return term(begin + j); }));
  return sum;
}

double sum_of_exp(const float* z, std::int64_t n, float largest) {
  return long_sum(n, [=](std::int64_t j) { return exp_f32(z[j] - largest); });
}

std::int64_t first_at(const float* z, std::int64_t n, float value) {
  for (std::int64_t j = 0; j < n; ++j)
    if (z[j] == value) return j;
  return n;
}

}  // namespace

void cross_entropy(Tensor nll, Tensor dlogits, Tensor logits, Tensor targets, double grad_scale, const Stream&) {
  const std::int64_t tokens = logits.shape[0], vocab = logits.shape[1];
  const Tensor out = dlogits ? dlogits : logits;
  with_operand(out, [&]<class T>(T* gradient) {
    parallel_for(row_chunks(tokens, vocab), [&](std::int64_t, std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        const std::int32_t target = targets.as<std::int32_t>()[t];
        T* dz = gradient + t * vocab;
        if (target < 0) {
          nll.as<float>()[t] = 0;
          if (dlogits) std::fill(dz, dz + vocab, T{});
          continue;
        }
        const float* z = logits.as<float>() + t * vocab;
        const float largest = row_max(z, vocab), at_target = z[target];
        const double sum = sum_of_exp(z, vocab, largest);
        nll.as<float>()[t] =
            static_cast<float>(std::log(sum) + static_cast<double>(largest) - static_cast<double>(at_target));
        if (!dlogits) continue;
        const float factor = static_cast<float>(grad_scale / sum);
#pragma omp simd
        for (std::int64_t j = 0; j < vocab; ++j) dz[j] = from_float<T>(exp_f32(z[j] - largest) * factor);
        const double probability = std::exp(static_cast<double>(at_target) - static_cast<double>(largest)) / sum;
        dz[target] = from_float<T>(static_cast<float>(grad_scale * (probability - 1)));
      }
    });
  });
}

void compare_logits(Tensor kl, Tensor agree, Tensor intact, Tensor ablated, const Stream&) {
  const std::int64_t tokens = intact.shape[0], vocab = intact.shape[1];
  parallel_for(row_chunks(tokens, vocab), [&](std::int64_t, std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const float* p = intact.as<float>() + t * vocab;
      const float* q = ablated.as<float>() + t * vocab;
      const float largest_p = row_max(p, vocab), largest_q = row_max(q, vocab);
      const double sum_p = sum_of_exp(p, vocab, largest_p), sum_q = sum_of_exp(q, vocab, largest_q);
      // sum p (ln p - ln q) with the two logarithms of the sums taken out.
      const double inner = long_sum(
          vocab, [=](std::int64_t j) { return exp_f32(p[j] - largest_p) * ((p[j] - largest_p) - (q[j] - largest_q)); });
      kl.as<float>()[t] = static_cast<float>(inner / sum_p - std::log(sum_p) + std::log(sum_q));
      agree.as<float>()[t] = first_at(p, vocab, largest_p) == first_at(q, vocab, largest_q) ? 1.0f : 0.0f;
    }
  });
}

}  // namespace routescope::cpu
