// CPU: global gradient norm and AdamW (Loshchilov & Hutter, "Decoupled weight decay regularization").
// AdamW moves 7 floats a parameter (four in, three out) and is bound by that.
#include <algorithm>
#include <cmath>

#include "kernels/backends.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/vec.h"

namespace routescope::cpu {

void gradient_norm(Tensor norm, Tensor scale, Tensor grads, double max_norm, const Stream& stream) {
  const float* g = grads.as<float>();
  const std::int64_t n = grads.numel();
  // Two levels: short runs in float, the runs of a chunk and the chunks in double.
  constexpr std::int64_t kRun = 4096;
  const Chunks chunks{n, std::max(kRun, (n + kMaxPartials - 1) / kMaxPartials)};
  Scratch scratch(stream);
  double* partials = scratch.take<double>(kMaxPartials);
  parallel_for(chunks, [=](std::int64_t c, std::int64_t begin, std::int64_t end) {
    double sum = 0;
    for (std::int64_t i = begin; i < end; i += kRun)
      sum += static_cast<double>(sum_of_squares(g + i, std::min(kRun, end - i)));
    partials[c] = sum;
  });
  double sum = 0;
  for (std::int64_t c = 0; c < chunks.number(); ++c) sum += partials[c];
  const double total = std::sqrt(sum);
  norm.as<float>()[0] = static_cast<float>(total);
  scale.as<float>()[0] = static_cast<float>(max_norm > 0 ? std::min(1.0, max_norm / (total + 1e-6)) : 1.0);
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

}  // namespace routescope::cpu
