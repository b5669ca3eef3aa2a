// CPU: sums of squares (of gradients, for their norm) and AdamW (Loshchilov & Hutter, "Decoupled weight decay
// regularization"). AdamW moves 7 floats a parameter (four in, three out) and is bound by that.
#include <algorithm>
#include <cmath>

#include "kernels/backends.h"
#include "kernels/cpu/parts/parallel.h"
#include "kernels/cpu/parts/vec.h"

namespace routescope::kernels::cpu {

namespace {

typedef double WideVec __attribute__((vector_size(2 * kVecBytes)));

double sum_of_squares_wide(const float* x, std::int64_t n) {
  WideVec sums[2] = {};
  const auto add_squares = [x](WideVec& sum, auto at) {
    const WideVec wide = __builtin_convertvector(at.load(x), WideVec);
    sum += wide * wide;
  };
  std::int64_t j = 0;
  for (; j + 2 * kWidth <= n; j += 2 * kWidth) {
    add_squares(sums[0], Whole{j});
    add_squares(sums[1], Whole{j + kWidth});
  }
  for_columns(n - j, [&](auto at) {
    at.j += j;
    add_squares(sums[0], at);
  });
  const WideVec lanes = sums[0] + sums[1];
  double sum = 0;
  for (int l = 0; l < kWidth; ++l) sum += lanes[l];
  return sum;
}

}  // namespace

void sum_of_squares(Tensor total, Tensor values, const Stream& stream) {
  const float* x = values.as<float>();
  const std::int64_t n = values.numel();
  const Chunks chunks{n, std::max<std::int64_t>(4096, (n + kMaxPartials - 1) / kMaxPartials)};
  Scratch scratch(stream);
  double* partials = scratch.take<double>(kMaxPartials);
  parallel_for(chunks, [=](std::int64_t c, std::int64_t begin, std::int64_t end) {
    partials[c] = sum_of_squares_wide(x + begin, end - begin);
  });
  double sum = 0;
  for (std::int64_t c = 0; c < chunks.number(); ++c) sum += partials[c];
  total.as<double>()[0] += sum;
}

void adamw(Tensor param, Tensor exp_avg, Tensor exp_avg_sq, Tensor grad, Tensor scale, const AdamWParams& params,
           const Stream&) {
  const auto step = static_cast<double>(params.step);
  const float beta1 = static_cast<float>(params.beta1), beta2 = static_cast<float>(params.beta2);
  // 1 - beta is taken in double: in float, 1 - 0.999 would lose four digits.
  const float rest1 = static_cast<float>(1 - params.beta1), rest2 = static_cast<float>(1 - params.beta2);
  const float to_mean = static_cast<float>(1 / (1 - std::pow(params.beta1, step)));
  const float to_mean_sq = static_cast<float>(1 / (1 - std::pow(params.beta2, step)));
  const float rate = static_cast<float>(params.learning_rate), eps = static_cast<float>(params.eps);
  const float decay = static_cast<float>(params.learning_rate * params.weight_decay);
  const float grad_scale = scale.as<float>()[0];
  float* x = param.as<float>();
  float* m = exp_avg.as<float>();
  float* v = exp_avg_sq.as<float>();
  const float* g = grad.as<float>();
  parallel_for(element_chunks(param.numel()), [=](std::int64_t, std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) {
      const float scaled = grad_scale * g[i];
      const float mean = beta1 * m[i] + rest1 * scaled;
      const float mean_sq = beta2 * v[i] + rest2 * scaled * scaled;
      m[i] = mean;
      v[i] = mean_sq;
      x[i] -= rate * (mean * to_mean) / (std::sqrt(mean_sq * to_mean_sq) + eps) + decay * x[i];
    }
  });
}

}  // namespace routescope::kernels::cpu
