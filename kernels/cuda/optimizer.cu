// Sums of squares (of gradients, for their norm) and AdamW (Loshchilov & Hutter, "Decoupled weight decay
// regularization") over flat arrays of f32:
//   total += sum g^2
//   g = scale grad;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
//   param -= lr (m / (1-b1^t) / (sqrt(v / (1-b2^t)) + eps) + weight_decay param)
// Bytes an element: the squares 4, AdamW 28 (four in, three out). Aim: 90 % of the copy bandwidth. The squares are
// added in double on two levels with a fixed cut, the same bits on every card: kNormPartials blocks, which fill a card
// of 132 multiprocessors once, then one. AdamW takes a vector of each array a thread, four loads in flight.
#include <cmath>

#include "kernels/backends.h"
#include "kernels/cuda/parts/long_sum.h"
#include "kernels/cuda/parts/partials.h"
#include "kernels/cuda/parts/reduce.h"
#include "kernels/cuda/parts/vec.h"

namespace routescope::kernels::cuda {

namespace {

constexpr int kNormThreads = 256;
constexpr int kNormEndThreads = 1024;
static_assert(kNormPartials <= kNormEndThreads);

/// partials[block] = the sum of squares of the block's `run` vectors.
__global__ void __launch_bounds__(kNormThreads)
    sum_of_squares_kernel(double* __restrict__ partials, const float* __restrict__ values, std::int64_t n,
                          std::int64_t run, bool aligned) {
  auto& shared = shared_memory<BlockShared<double>>();
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * run * kVec<float>;
  const std::int64_t end = begin + run * kVec<float> < n ? begin + run * kVec<float> : n;
  const double sum =
      block_sum(long_sum<kNormThreads>(values, begin, end, aligned, [](double g) { return g * g; }), shared);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kNormEndThreads)
    add_squares_kernel(double* total, const double* __restrict__ partials, int count) {
  auto& shared = shared_memory<BlockShared<double>>();
  const int i = static_cast<int>(threadIdx.x);
  const double sum = block_sum(i < count ? partials[i] : 0.0, shared);
  if (i == 0) total[0] += sum;
}

/// AdamWParams as the kernel uses them: bias corrections and differences from one taken in double on the host.
struct Update {
  float beta1, beta2;
  float rest1, rest2;  // 1 - beta: in float, 1 - 0.999 would lose four digits
  float to_mean, to_mean_sq;
  float rate, eps, decay;
};

/// Root and division by the hardware's approximations. The error is 4 roundings, in the step and not in the moments.
/// The exact ones branch, and loads would wait for the branches.
__device__ inline void update_element(float& x, float& m, float& v, float grad, const Update& u) {
  m = u.beta1 * m + u.rest1 * grad;
  v = u.beta2 * v + u.rest2 * grad * grad;
  const float root = __fdividef(1.0f, rsqrtf(v * u.to_mean_sq));
  x -= __fdividef(u.rate * (m * u.to_mean), root + u.eps) + u.decay * x;
}

constexpr int kUpdateThreads = 256;

__global__ void __launch_bounds__(kUpdateThreads)
    adamw_kernel(float* __restrict__ param, float* __restrict__ exp_avg, float* __restrict__ exp_avg_sq,
                 const float* __restrict__ grad, const float* __restrict__ scale, std::int64_t n, Update update,
                 bool aligned) {
  const std::int64_t first = (static_cast<std::int64_t>(blockIdx.x) * kUpdateThreads + threadIdx.x) * kVec<float>;
  if (aligned && first + kVec<float> <= n) {
    Vec<float> x = load_vec(param + first), m = load_vec(exp_avg + first), v = load_vec(exp_avg_sq + first);
    const Vec<float> g = load_vec(grad + first);
    const float factor = *scale;
#pragma unroll
    for (int i = 0; i < kVec<float>; ++i)
      update_element(x.value[i], m.value[i], v.value[i], factor * g.value[i], update);
    store_vec(param + first, x);
    store_vec(exp_avg + first, m);
    store_vec(exp_avg_sq + first, v);
    return;
  }
  for (std::int64_t i = first; i < first + kVec<float> && i < n; ++i)
    update_element(param[i], exp_avg[i], exp_avg_sq[i], *scale * grad[i], update);
}

}  // namespace

void sum_of_squares(Tensor total, Tensor values, const Stream& stream) {
  if (values.numel() == 0) return;
  const std::int64_t n = values.numel(), vectors = ceil_div<std::int64_t>(n, kVec<float>);
  Scratch scratch(stream);
  auto* partials = scratch.take<double>(kNormPartials);
  // Each block takes a run of whole sweeps of its threads, at least one.
  const std::int64_t sweeps = ceil_div<std::int64_t>(vectors, std::int64_t{kNormPartials} * kNormThreads);
  const std::int64_t run = (sweeps > 0 ? sweeps : 1) * kNormThreads;
  const auto blocks = static_cast<int>(ceil_div(vectors, run));
  launch("sum_of_squares", sum_of_squares_kernel,
         {dim3(static_cast<unsigned>(blocks)), kNormThreads, sizeof(BlockShared<double>)}, stream, partials,
         values.as<float>(), n, run, vec_aligned(values.data));
  launch("add_squares", add_squares_kernel, {dim3(1), kNormEndThreads, sizeof(BlockShared<double>)}, stream,
         total.as<double>(), partials, blocks);
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
  const auto blocks = ceil_div<std::int64_t>(n, std::int64_t{kUpdateThreads} * kVec<float>);
  launch("adamw", adamw_kernel, {dim3(static_cast<unsigned>(blocks)), kUpdateThreads}, stream, param.as<float>(),
         exp_avg.as<float>(), exp_avg_sq.as<float>(), grad.as<float>(), scale.as<float>(), n, update, aligned);
}

}  // namespace routescope::kernels::cuda
