// What the sources of a read are in its mixture h_t = sum_i alpha_ti v_ti, summed over tokens, in double:
//   sums[0, i] += sum_t alpha_ti <v_ti, h_t> / |h_t|^2,   sums[1, i] += sum_t |alpha_ti v_ti| / sum_j |alpha_tj v_tj|
// (alpha_ti in place of a quotient by 0). alpha [tokens, columns] f32; columns tensors [tokens, d] of T move once, d
// sizeof(T) bytes a token and column: the second look at a row finds it in the cache. For the steps that are recorded.
// A block takes tokens in turn: its threads make h in shared memory, a column each of 16 bytes; then its warps take the
// sources in turn. A second kernel adds the blocks' sums in a fixed order.
#include "kernels/backends.h"
#include "kernels/cuda/parts/partials.h"
#include "kernels/cuda/parts/reduce.h"
#include "kernels/cuda/parts/vec.h"
#include "kernels/cuda/reads/read.h"

namespace routescope::kernels::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kColumns = kMaxSources + 1;
constexpr int kWidest = 5120;  // columns of h

template <class T>
struct ContributionArguments {
  const float* alpha;
  const T* value[kColumns];
  std::int64_t tokens;
  int d;
  int columns;
  bool whole;  // rows move in whole vectors
};

struct Shared {
  alignas(16) float h[kWidest];
  float product[kColumns];  // alpha_i <v_i, h>
  float length[kColumns];   // |alpha_i v_i|
  double sums[2][kColumns];
  BlockShared<float> square;
};

/// h into shared memory, whole vectors with zeros beyond column d. Returns the thread's part of |h|^2.
template <class T>
__device__ float mix_values(float* h, const ContributionArguments<T>& a, std::int64_t token) {
  const float* alpha = a.alpha + token * a.columns;
  float square = 0;
  for (int begin = static_cast<int>(threadIdx.x) * kVec<T>; begin < a.d; begin += kThreads * kVec<T>) {
    Vec<T> sum{};
    for (int i = 0; i < a.columns; ++i) {
      const Vec<T> v = load_row(a.value[i] + token * a.d, begin, a.d, a.whole);
#pragma unroll
      for (int k = 0; k < kVec<T>; ++k) sum.value[k] = fmaf(alpha[i], v.value[k], sum.value[k]);
    }
    store_floats(h, begin, kWidest, true, sum);
#pragma unroll
    for (int k = 0; k < kVec<T>; ++k) square = fmaf(sum.value[k], sum.value[k], square);
  }
  return square;
}

/// By a warp: alpha_i <v_i, h> and |alpha_i v_i| of one source.
template <class T>
__device__ void measure_source(Shared& shared, const ContributionArguments<T>& a, std::int64_t token, int i) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float product = 0, square = 0;
  for (int begin = lane * kVec<T>; begin < a.d; begin += kWarp * kVec<T>) {
    const Vec<T> v = load_row(a.value[i] + token * a.d, begin, a.d, a.whole);
    const Vec<T> h = load_floats<T>(shared.h, begin, kWidest, true);
#pragma unroll
    for (int k = 0; k < kVec<T>; ++k) {
      product = fmaf(v.value[k], h.value[k], product);
      square = fmaf(v.value[k], v.value[k], square);
    }
  }
  product = warp_sum(product);
  square = warp_sum(square);
  if (lane != 0) return;
  const float alpha = a.alpha[token * a.columns + i];
  shared.product[i] = alpha * product;
  shared.length[i] = fabsf(alpha) * sqrtf(square);
}

/// partials [blocks, 2, columns]
template <class T>
__global__ void __launch_bounds__(kThreads)
    contribution_sums_kernel(double* partials, const ContributionArguments<T> a) {
  auto& shared = shared_memory<Shared>();
  const int first = static_cast<int>(threadIdx.x), warp = first / kWarp;
  for (int i = first; i < a.columns; i += kThreads) shared.sums[0][i] = shared.sums[1][i] = 0;
  for (std::int64_t t = blockIdx.x; t < a.tokens; t += gridDim.x) {
    // The barriers of block_sum show h to all warps, and end the use of the last token's products and lengths.
    const float square = block_sum(mix_values(shared.h, a, t), shared.square);
    for (int i = warp; i < a.columns; i += kThreads / kWarp) measure_source(shared, a, t, i);
    __syncthreads();
    for (int i = first; i < a.columns; i += kThreads) {
      double length = 0;
      for (int j = 0; j < a.columns; ++j) length += static_cast<double>(shared.length[j]);
      const auto alpha = static_cast<double>(a.alpha[t * a.columns + i]);
      shared.sums[0][i] += square > 0 ? static_cast<double>(shared.product[i]) / static_cast<double>(square) : alpha;
      shared.sums[1][i] += length > 0 ? static_cast<double>(shared.length[i]) / length : alpha;
    }
  }
  double* to = partials + std::int64_t{blockIdx.x} * 2 * a.columns;
  for (int i = first; i < a.columns; i += kThreads) {
    to[i] = shared.sums[0][i];
    to[a.columns + i] = shared.sums[1][i];
  }
}

/// A block for each of sums [width]: += the sum of a column of partials [count, width].
__global__ void __launch_bounds__(kThreads)
    add_contribution_sums_kernel(double* sums, const double* partials, int count, int width) {
  auto& shared = shared_memory<BlockShared<double>>();
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads)
    sum += partials[static_cast<std::int64_t>(i) * width + blockIdx.x];
  sum = block_sum(sum, shared);
  if (threadIdx.x == 0) sums[blockIdx.x] += sum;
}

}  // namespace

void contribution_statistics(Tensor sums, Tensor alpha, std::span<const Tensor> values, const Stream& stream) {
  const char* name = "contribution_statistics";
  const std::int64_t tokens = alpha.shape[0], d = values.front().shape[1];
  const int columns = static_cast<int>(alpha.shape[1]);
  const auto expect_at_most = [&](std::int64_t found, const char* what, int most) {
    if (found > most)
      throw std::invalid_argument(std::string(name) + ": " + std::to_string(found) + " " + what +
                                  ", expected at most " + std::to_string(most) + " on CUDA");
  };
  expect_at_most(columns, "columns", kColumns);
  expect_at_most(d, "as hidden size", kWidest);
  for (const Tensor& value : values) require_one_type(name, values.front(), value);
  const int blocks = static_cast<int>(std::min<std::int64_t>(tokens, kContributionPartials));
  auto* partials = Scratch(stream).take<double>(static_cast<std::size_t>(blocks * 2 * columns));
  with_type(values.front(), [&](auto type) {
    using T = decltype(type);
    ContributionArguments<T> a{.alpha = alpha.as<float>(),
                               .value = {},
                               .tokens = tokens,
                               .d = static_cast<int>(d),
                               .columns = columns,
                               .whole = true};
    for (std::size_t i = 0; i < values.size(); ++i) {
      a.value[i] = values[i].as<T>();
      a.whole = a.whole && rows_aligned(a.value[i], d);
    }
    launch(name, contribution_sums_kernel<T>, {dim3(static_cast<unsigned>(blocks)), kThreads, sizeof(Shared)}, stream,
           partials, a);
  });
  launch(name, add_contribution_sums_kernel,
         {dim3(static_cast<unsigned>(2 * columns)), kThreads, sizeof(BlockShared<double>)}, stream, sums.as<double>(),
         partials, blocks, 2 * columns);
}

}  // namespace routescope::kernels::cuda
