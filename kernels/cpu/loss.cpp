// CPU: softmax cross-entropy and the comparison of two predictions.
//   nll = log sum exp z - z_target,   dz = grad_scale (softmax(z) - onehot(target)),   KL(p || q) = sum p (ln p - ln q)
// A row of logits (up to 600 KB) is read once for its maximum, once for the sum of exponentials, once for the gradient;
// the last two come from the cache.
#include <algorithm>
#include <cmath>

#include "kernels/backends.h"
#include "kernels/cpu/parts/exp.h"
#include "kernels/cpu/parts/operand.h"
#include "kernels/cpu/parts/parallel.h"

namespace routescope::kernels::cpu {

namespace {

/// sum of term(at, begin) over a whole vocabulary, `at` counting from `begin`: runs in float, their total in double.
template <class Term>
double long_sum(std::int64_t n, Term&& term) {
  constexpr std::int64_t kRun = 4096;
  double sum = 0;
  for (std::int64_t begin = 0; begin < n; begin += kRun)
    sum += static_cast<double>(sum_columns(std::min(kRun, n - begin), [&](auto at) { return term(at, begin); }));
  return sum;
}

double sum_of_exp(const float* z, std::int64_t n, float largest) {
  return long_sum(n, [=](auto at, std::int64_t run) { return exp(at.load(z + run) - largest); });
}

/// r + exp(-r) - 1, which is r^2/2 for small r: there by its series (the next term is below 2e-7 of the result).
Vec excess(Vec r) {
  const Vec series = r * r * (0.5f + r * (-1.0f / 6 + r * (1.0f / 24 + r * (-1.0f / 120 + r * (1.0f / 720)))));
  const Vec magnitude = r < 0.0f ? -r : r;
  return magnitude < 0.125f ? series : r + exp(-r) - 1.0f;
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
        const float largest = max_columns(z, vocab), at_target = z[target];
        const double sum = sum_of_exp(z, vocab, largest);
        nll.as<float>()[t] =
            static_cast<float>(std::log(sum) + static_cast<double>(largest) - static_cast<double>(at_target));
        if (!dlogits) continue;
        const float factor = static_cast<float>(grad_scale / sum);
        for_columns(vocab, [=](auto at) { at.store(dz, exp(at.load(z) - largest) * factor); });
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
      const float largest_p = max_columns(p, vocab), largest_q = max_columns(q, vocab);
      const double sum_p = sum_of_exp(p, vocab, largest_p), sum_q = sum_of_exp(q, vocab, largest_q);
      // sum p r with r = ln p - ln q. As sum p exp(-r) = sum q = 1, it equals sum p (r + exp(-r) - 1): no term is
      // negative, so nothing cancels when the two predictions are almost the same.
      const float shift =
          static_cast<float>(static_cast<double>(largest_p) - static_cast<double>(largest_q) + std::log(sum_p / sum_q));
      const double sum = long_sum(vocab, [=](auto at, std::int64_t run) {
        const Vec logit_p = at.load(p + run), logit_q = at.load(q + run);
        return exp(logit_p - largest_p) * excess((logit_p - logit_q) - shift);
      });
      kl.as<float>()[t] = static_cast<float>(sum / sum_p);
      agree.as<float>()[t] = first_at(p, vocab, largest_p) == first_at(q, vocab, largest_q) ? 1.0f : 0.0f;
    }
  });
}

void accumulate_loss(Tensor total, Tensor nll, const Stream&) {
  double sum = 0;
  for (const float value : nll.span<float>()) sum += static_cast<double>(value);
  total.as<double>()[0] += sum;
}

}  // namespace routescope::kernels::cpu
