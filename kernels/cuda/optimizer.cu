// Global gradient norm and AdamW (Loshchilov & Hutter, "Decoupled weight decay regularization") over flat arrays of
// f32:
//   norm = sqrt(sum g^2);   scale = min(1, max_norm / (norm + 1e-6))
//   g = scale grad;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
//   param -= lr (m / (1-b1^t) / (sqrt(v / (1-b2^t)) + eps) + weight_decay param)
// Bytes an element: the norm 4, AdamW 28 (four in, three out). Aim: 90 % of the copy bandwidth. The norm is a sum in
// double on two levels with a fixed cut, the same bits on every card: kNormPartials blocks, which fill a card of 132
// multiprocessors once, then one. AdamW takes two vectors of each array a thread, eight loads in flight; its divisions
// and root are exactly rounded, as the CPU's, and fit under the memory's time.
#include <cmath>

#include "kernels/backends.h"
#include "kernels/cuda/partials.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/vec.h"

namespace routescope::cuda {

namespace {

constexpr int kNormThreads = 256;
constexpr int kNormEndThreads = 1024;
static_assert(kNormPartials <= kNormEndThreads);

__device__ inline double sum_of_squares(const Vec<float>& v) {
  double sum = 0;
#pragma unroll
  for (int i = 0; i < kVec<float>; ++i) {
    const double x = static_cast<double>(v.value[i]);
    sum += x * x;
  }
  return sum;
}

/// partials[block] = the sum of squares of the block's `run` vectors.
__global__ void __launch_bounds__(kNormThreads)
    sum_of_squares_kernel(double* __restrict__ partials, const float* __restrict__ grads, std::int64_t n,
                          std::int64_t run, bool aligned) {
  auto& shared = shared_memory<BlockShared<double>>();
  constexpr int kUnroll = 4;
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * run * kVec<float>;
  const std::int64_t end = begin + run * kVec<float> < n ? begin + run * kVec<float> : n;
  double sum = 0;
  for (std::int64_t at = begin + threadIdx.x * kVec<float>; at < end;
       at += std::int64_t{kUnroll} * kNormThreads * kVec<float>) {
    Vec<float> v[kUnroll];
#pragma unroll
    for (int i = 0; i < kUnroll; ++i) {
      const std::int64_t first = at + std::int64_t{i} * kNormThreads * kVec<float>;
      const std::int64_t left = end - first;
      v[i] = load_row(grads + first, 0, left < kVec<float> ? static_cast<int>(left < 0 ? 0 : left) : kVec<float>,
                      aligned && left >= kVec<float>);
    }
#pragma unroll
    for (int i = 0; i < kUnroll; ++i) sum += sum_of_squares(v[i]);
  }
  sum = block_sum(sum, shared);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kNormEndThreads)
    norm_kernel(float* norm, float* scale, const double* __restrict__ partials, int count, double max_norm) {
  auto& shared = shared_memory<BlockShared<double>>();
  const int i = static_cast<int>(threadIdx.x);
  const double total = sqrt(block_sum(i < count ? partials[i] : 0.0, shared));
  if (i == 0) {
    norm[0] = static_cast<float>(total);
    scale[0] = static_cast<float>(max_norm > 0 ? fmin(1.0, max_norm / (total + 1e-6)) : 1.0);
  }
}

/// AdamWParams as the kernel uses them: bias corrections and differences from one taken in double on the host.
struct Update {
  float beta1, beta2;
  float rest1, rest2;  // 1 - beta: in float, 1 - 0.999 would lose four digits
  float to_mean, to_mean_sq;
  float rate, eps, decay;
};

__device__ inline void update_element(float& x, float& m, float& v, float grad, const Update& u) {
  m = u.beta1 * m + u.rest1 * grad;
  v = u.beta2 * v + u.rest2 * grad * grad;
  x -= u.rate * (m * u.to_mean) / (sqrtf(v * u.to_mean_sq) + u.eps) + u.decay * x;
}

constexpr int kUpdateThreads = 256;
constexpr int kUpdateVecs = 2;

__global__ void __launch_bounds__(kUpdateThreads)
    adamw_kernel(float* __restrict__ param, float* __restrict__ exp_avg, float* __restrict__ exp_avg_sq,
                 const float* __restrict__ grad, const float* __restrict__ scale, std::int64_t n, Update update,
                 bool aligned) {
  const std::int64_t first =
      (static_cast<std::int64_t>(blockIdx.x) * kUpdateVecs * kUpdateThreads + threadIdx.x) * kVec<float>;
  constexpr std::int64_t kStride = kUpdateThreads * kVec<float>;
  const float factor = *scale;
  if (aligned && first + (kUpdateVecs - 1) * kStride + kVec<float> <= n) {
    Vec<float> x[kUpdateVecs], m[kUpdateVecs], v[kUpdateVecs], g[kUpdateVecs];
#pragma unroll
    for (int part = 0; part < kUpdateVecs; ++part) {
      const std::int64_t at = first + part * kStride;
      x[part] = load_vec(param + at);
      m[part] = load_vec(exp_avg + at);
      v[part] = load_vec(exp_avg_sq + at);
      g[part] = load_vec(grad + at);
    }
#pragma unroll
    for (int part = 0; part < kUpdateVecs; ++part) {
      const std::int64_t at = first + part * kStride;
#pragma unroll
      for (int i = 0; i < kVec<float>; ++i)
        update_element(x[part].value[i], m[part].value[i], v[part].value[i], factor * g[part].value[i], update);
      store_vec(param + at, x[part]);
      store_vec(exp_avg + at, m[part]);
      store_vec(exp_avg_sq + at, v[part]);
    }
    return;
  }
  for (int part = 0; part < kUpdateVecs; ++part) {
    const std::int64_t at = first + part * kStride;
    for (std::int64_t i = at; i < at + kVec<float> && i < n; ++i)
      update_element(param[i], exp_avg[i], exp_avg_sq[i], factor * grad[i], update);
  }
}

}  // namespace

void gradient_norm(Tensor norm, Tensor scale, Tensor grads, double max_norm, const Stream& stream) {
  const std::int64_t n = grads.numel(), vectors = ceil_div<std::int64_t>(n, kVec<float>);
  Scratch scratch(stream);
  auto* partials = scratch.take<double>(kNormPartials);
  // Each block a run of whole sweeps of its threads, at least one.
  const std::int64_t sweeps = ceil_div<std::int64_t>(vectors, std::int64_t{kNormPartials} * kNormThreads);
  const std::int64_t run = (sweeps > 0 ? sweeps : 1) * kNormThreads;
  const auto blocks = static_cast<int>(ceil_div(vectors, run));
  launch("sum_of_squares", sum_of_squares_kernel,
         {dim3(static_cast<unsigned>(blocks)), kNormThreads, sizeof(BlockShared<double>)}, stream, partials,
         grads.as<float>(), n, run, vec_aligned(grads.data));
  launch("norm", norm_kernel, {dim3(1), kNormEndThreads, sizeof(BlockShared<double>)}, stream, norm.as<float>(),
         scale.as<float>(), partials, blocks, max_norm);
}

void adamw(Tensor param, Tensor exp_avg, Tensor exp_avg_sq, Tensor grad, Tensor scale, const AdamWParams& params,
           const Stream& stream) {
  const auto step = static_cast<double>(params.step);
  const Update update{.beta1 = static_cast<float>(params.beta1),
                      .beta2 = static_cast<float>(params.beta2),
                      .rest1 = static_cast<float>(1 - params.beta1),
                      .rest2 = static_cast<float>(1 - params.beta2),
                      .to_mean = static_cast<float>(1 / (1 - std::pow(params.beta1, step))),
                      .to_mean_sq = static_cast<float>(1 / (1 - std::pow(params.beta2, step))),
                      .rate = static_cast<float>(params.learning_rate),
                      .eps = static_cast<float>(params.eps),
                      .decay = static_cast<float>(params.learning_rate * params.weight_decay)};
  const std::int64_t n = param.numel();
  const bool aligned =
      vec_aligned(param.data) && vec_aligned(exp_avg.data) && vec_aligned(exp_avg_sq.data) && vec_aligned(grad.data);
  const auto blocks = ceil_div<std::int64_t>(n, std::int64_t{kUpdateThreads} * kUpdateVecs * kVec<float>);
  launch("adamw", adamw_kernel, {dim3(static_cast<unsigned>(blocks)), kUpdateThreads}, stream, param.as<float>(),
         exp_avg.as<float>(), exp_avg_sq.as<float>(), grad.as<float>(), scale.as<float>(), n, update, aligned);
}

}  // namespace routescope::cuda
