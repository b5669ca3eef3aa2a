// The routing record's sums over tokens, in double: alpha, alpha^2 and rms of each column, and the entropy.
//   sums[., i] += sum_t (alpha_ti, alpha_ti^2, 1 / s_ti),   entropy -= sum_t sum_i alpha_ti ln alpha_ti
// alpha [tokens, columns] and columns vectors [tokens] f32: 8 bytes a token and column, a few MB at the steps that are
// recorded; the launches take most of the time. A block takes a chunk of tokens and one column, its threads
// the chunk's tokens in turn; a second kernel adds the chunks' sums in order.
#include "kernels/backends.h"
#include "kernels/cuda/parts/partials.h"
#include "kernels/cuda/parts/reduce.h"
#include "kernels/cuda/reads/read.h"

namespace routescope::kernels::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kColumns = kMaxSources + 1;

struct StatisticsArguments {
  const float* alpha;
  const float* inv_rms[kColumns];
  std::int64_t tokens;
  int columns;
};

struct Shared {
  BlockShared<double> sum;
};

/// partials [chunks, columns, 4]
__global__ void __launch_bounds__(kThreads) routing_sums_kernel(double* partials, const StatisticsArguments a) {
  auto& shared = shared_memory<Shared>();
  const int column = static_cast<int>(blockIdx.y);
  const float* inv_rms = a.inv_rms[column];
  double sum[4] = {};
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t t = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; t < a.tokens; t += stride) {
    const auto alpha = static_cast<double>(a.alpha[t * a.columns + column]);
    sum[0] += alpha;
    sum[1] += alpha * alpha;
    sum[2] += 1 / static_cast<double>(inv_rms[t]);
    if (alpha > 0) sum[3] -= alpha * log(alpha);
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) sum[k] = block_sum(sum[k], shared.sum);
  if (threadIdx.x == 0) {
    double* to = partials + (std::int64_t{blockIdx.x} * a.columns + column) * 4;
    for (int k = 0; k < 4; ++k) to[k] = sum[k];
  }
}

__global__ void __launch_bounds__(kThreads)
    add_routing_sums_kernel(double* sums, double* entropy, const double* partials, int chunks, int columns) {
  for (int at = static_cast<int>(threadIdx.x); at < 3 * columns; at += kThreads) {
    const int which = at / columns, column = at % columns;
    double sum = 0;
    for (int chunk = 0; chunk < chunks; ++chunk) sum += partials[(chunk * columns + column) * 4 + which];
    sums[at] += sum;
  }
  if (threadIdx.x != 0) return;
  double sum = 0;
  for (int at = 0; at < chunks * columns; ++at) sum += partials[at * 4 + 3];
  entropy[0] += sum;
}

}  // namespace

void routing_statistics(Tensor sums, Tensor entropy, Tensor alpha, std::span<const Tensor> inv_rms,
                        const Stream& stream) {
  const char* name = "routing_statistics";
  if (inv_rms.size() > static_cast<std::size_t>(kColumns))
    throw std::invalid_argument(std::string(name) + ": " + std::to_string(inv_rms.size()) +
                                " columns, expected at most " + std::to_string(kColumns) + " on CUDA");
  StatisticsArguments a{
      .alpha = alpha.as<float>(), .inv_rms = {}, .tokens = alpha.shape[0], .columns = static_cast<int>(alpha.shape[1])};
  for (std::size_t i = 0; i < inv_rms.size(); ++i) a.inv_rms[i] = inv_rms[i].as<float>();
  const auto chunks =
      static_cast<int>(std::min<std::int64_t>(kRoutingPartials, ceil_div<std::int64_t>(a.tokens, kThreads)));
  auto* partials = Scratch(stream).take<double>(static_cast<std::size_t>(chunks * a.columns * 4));
  launch(name, routing_sums_kernel,
         {dim3(static_cast<unsigned>(chunks), static_cast<unsigned>(a.columns)), kThreads, sizeof(Shared)}, stream,
         partials, a);
  launch(name, add_routing_sums_kernel, {dim3(1), kThreads}, stream, sums.as<double>(), entropy.as<double>(), partials,
         chunks, a.columns);
}

}  // namespace routescope::kernels::cuda
