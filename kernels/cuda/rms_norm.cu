// Residual addition and RMSNorm, forward and backward. Rows of d elements of b bytes:
//   p = p_in + y,  s = (mean(p^2) + eps)^(-1/2),  x = p s gain;   p_in, y in, p, x out: 4 d b bytes a token
//   dp += s (g - p s^2 <g, p> / d)  with  g = dx gain;   dgain += sum over tokens of dx p s;   dx, p, dp in, dp out: 4
//   d b
// Aim: 90 % of the copy bandwidth forward, 85 % backward. A block takes kRows rows at a time (row_block.h): all their
// loads are in flight together, and one reduction over the block serves them all. A thread keeps the sums of dgain of
// its columns in registers over all rows; each block writes one row of sums, and add_partials adds these rows.
#include "kernels/backends.h"
#include "kernels/cuda/parts/partials.h"
#include "kernels/cuda/parts/row_block.h"

namespace routescope::kernels::cuda {

namespace {

template <class L>
inline constexpr int kRows = L::kVecs == 1 ? 4 : 1;

template <class L>
struct Shared {
  float sums[2][L::kMaxWarps][kRows<L>];
};

/// Rows t .. t + kRows - 1 of which those below `tokens` exist. Lane l of block_sums has the sum of row l % kRows.
template <class L>
__device__ float of_row(float total, int r) {
  return __shfl_sync(kFullMask, total, r);
}

template <class L>
__global__ void __launch_bounds__(L::kMaxThreads, L::kMinBlocks * 3 / 2)
    add_rms_norm_forward_kernel(typename L::T* x, typename L::T* p, float* inv_rms, const typename L::T* p_in,
                                const typename L::T* y, const float* gain_row, std::int64_t tokens, int d, float eps) {
  auto& shared = shared_memory<Shared<L>>();
  constexpr int kCount = kRows<L>;
  const Columns<L> gain = load_parameter<L>(gain_row, d);
  int turn = 0;
  for (std::int64_t t = std::int64_t{blockIdx.x} * kCount; t < tokens; t += std::int64_t{gridDim.x} * kCount) {
    Packed<L> a[kCount] = {}, b[kCount] = {};
#pragma unroll
    for (int r = 0; r < kCount; ++r) {
      if (t + r >= tokens) continue;
      if (p_in) a[r] = load_packed<L>(p_in + (t + r) * d, d);
      if (y) b[r] = load_packed<L>(y + (t + r) * d, d);
    }
    // The unrounded sum is used below; only the store rounds it.
    Columns<L> sum[kCount];
    float squares[kCount];
#pragma unroll
    for (int r = 0; r < kCount; ++r) {
      sum[r] = unpack<L>(a[r]);
      add_scaled<L>(sum[r], 1.0f, unpack<L>(b[r]));
      squares[r] = dot<L>(sum[r], sum[r]);
      if (t + r < tokens) store_columns<L>(p + (t + r) * d, d, sum[r]);
    }
    const float s = rsqrtf(block_sums(squares, shared.sums[turn]) / static_cast<float>(d) + eps);
    turn ^= 1;
#pragma unroll
    for (int r = 0; r < kCount; ++r) {
      const float s_r = of_row<L>(s, r);
      if (t + r >= tokens) continue;
#pragma unroll
      for (int c = 0; c < L::kColumns; ++c) sum[r].value[c] *= s_r * gain.value[c];
      store_columns<L>(x + (t + r) * d, d, sum[r]);
    }
    if (threadIdx.x < kCount && t + threadIdx.x < tokens) inv_rms[t + threadIdx.x] = s;
  }
}

template <class L>
__global__ void __launch_bounds__(L::kMaxThreads, L::kMinBlocks)
    add_rms_norm_backward_kernel(typename L::T* dp, float* partials, const typename L::T* dx, const typename L::T* p,
                                 const float* inv_rms, const float* gain_row, std::int64_t tokens, int d) {
  auto& shared = shared_memory<Shared<L>>();
  constexpr int kCount = kRows<L>;
  const Columns<L> gain = load_parameter<L>(gain_row, d);
  Columns<L> dgain{};
  int turn = 0;
  for (std::int64_t t = std::int64_t{blockIdx.x} * kCount; t < tokens; t += std::int64_t{gridDim.x} * kCount) {
    Packed<L> grad[kCount] = {}, value[kCount] = {}, out[kCount] = {};
    float s[kCount] = {};
#pragma unroll
    for (int r = 0; r < kCount; ++r) {
      if (t + r >= tokens) continue;
      grad[r] = load_packed<L>(dx + (t + r) * d, d);
      value[r] = load_packed<L>(p + (t + r) * d, d);
      out[r] = load_packed<L>(dp + (t + r) * d, d);
      s[r] = inv_rms[t + r];
    }
    float along[kCount] = {};
#pragma unroll
    for (int r = 0; r < kCount; ++r) {
      Columns<L> g = unpack<L>(grad[r]);
      const Columns<L> v = unpack<L>(value[r]);
#pragma unroll
      for (int c = 0; c < L::kColumns; ++c) {
        dgain.value[c] = fmaf(g.value[c] * s[r], v.value[c], dgain.value[c]);
        g.value[c] *= gain.value[c];
      }
      along[r] = dot<L>(g, v);
    }
    const float total = block_sums(along, shared.sums[turn]);
    turn ^= 1;
#pragma unroll
    for (int r = 0; r < kCount; ++r) {
      const float back = s[r] * s[r] * s[r] * of_row<L>(total, r) / static_cast<float>(d);
      if (t + r >= tokens) continue;
      const Columns<L> g = unpack<L>(grad[r]), v = unpack<L>(value[r]);
      Columns<L> sum = unpack<L>(out[r]);
#pragma unroll
      for (int c = 0; c < L::kColumns; ++c) sum.value[c] += s[r] * g.value[c] * gain.value[c] - back * v.value[c];
      store_columns<L>(dp + (t + r) * d, d, sum);
    }
  }
  store_floats<L>(partials + std::int64_t{blockIdx.x} * d, d, dgain);
}

/// Blocks forward, fewer than rows because each loads the gain once: twice six for each of 132 multiprocessors.
constexpr std::int64_t kForwardBlocks = 1584;

template <class L>
std::int64_t blocks_of(std::int64_t tokens, int threads, std::int64_t of_128_threads) {
  return row_blocks(ceil_div<std::int64_t>(tokens, kRows<L>), threads, of_128_threads);
}

template <class T>
void forward(T* x, T* p, float* inv_rms, const T* p_in, const T* y, const float* gain, std::int64_t tokens,
             std::int64_t d, double eps, const Stream& stream) {
  const bool whole = rows_aligned(x, d) && rows_aligned(p, d) && rows_aligned(p_in, d) && rows_aligned(y, d);
  with_rows<T>("add_rms_norm_forward", d, whole, [&]<class L>(L, int threads) {
    const auto blocks = static_cast<unsigned>(blocks_of<L>(tokens, threads, kForwardBlocks));
    launch("add_rms_norm_forward", add_rms_norm_forward_kernel<L>, {dim3(blocks), threads, sizeof(Shared<L>)}, stream,
           x, p, inv_rms, p_in, y, gain, tokens, d, eps);
  });
}

template <class T>
void backward(T* dp, float* dgain, const T* dx, const T* p, const float* inv_rms, const float* gain,
              std::int64_t tokens, std::int64_t d, const Stream& stream) {
  const bool whole = rows_aligned(dp, d) && rows_aligned(dx, d) && rows_aligned(p, d);
  with_rows<T>("add_rms_norm_backward", d, whole, [&]<class L>(L, int threads) {
    const auto blocks = static_cast<int>(blocks_of<L>(tokens, threads, kGradientBlocks));
    auto* partials = Scratch(stream).take<float>(static_cast<std::size_t>(blocks * d));
    launch("add_rms_norm_backward", add_rms_norm_backward_kernel<L>,
           {dim3(static_cast<unsigned>(blocks)), threads, sizeof(Shared<L>)}, stream, dp, partials, dx, p, inv_rms,
           gain, tokens, d);
    add_partials(dgain, partials, blocks, static_cast<int>(d), stream);
  });
}

}  // namespace

void add_rms_norm_forward(Tensor x, Tensor p, Tensor inv_rms, Tensor p_in, Tensor y, Tensor gain, double eps,
                          const Stream& stream) {
  require_one_type("add_rms_norm_forward", p, x, p_in, y);
  with_type(p, [&]<class T>(T) {
    forward(x.as<T>(), p.as<T>(), inv_rms.as<float>(), p_in.as<T>(), y.as<T>(), gain.as<float>(), p.shape[0],
            p.shape[1], eps, stream);
  });
}

void add_rms_norm_backward(Tensor dp, Tensor dgain, Tensor dx, Tensor p, Tensor inv_rms, Tensor gain,
                           const Stream& stream) {
  require_one_type("add_rms_norm_backward", dp, dx, p);
  with_type(dp, [&]<class T>(T) {
    backward(dp.as<T>(), dgain.as<float>(), dx.as<T>(), p.as<T>(), inv_rms.as<float>(), gain.as<float>(), p.shape[0],
             p.shape[1], stream);
  });
}

}  // namespace routescope::kernels::cuda
