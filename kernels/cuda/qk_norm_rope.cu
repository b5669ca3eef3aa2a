// Per-head RMSNorm of q and k with a gain, then rotary embedding by rotation of halves, on the packed row of q heads, k
// heads and v heads (v is copied):
//   x = q s gain,  s = (mean(q^2) + eps)^(-1/2);   angle = position theta^(-2i/head_dim), position = row mod seq_len
//   out[i] = x[i] cos - x[i+half] sin,   out[i+half] = x[i+half] cos + x[i] sin
// qkv, out [tokens, (heads + 2 kv_heads) head_dim]. Bytes a token: twice the row. Aim: 90 % of the copy bandwidth. A
// warp takes one token after another and makes the angles once for all heads of a token. Several heads lie side by side
// on the warp (rotary.h), and two rounds of them are in flight.
#include <algorithm>

#include "kernels/backends.h"
#include "kernels/cuda/rotary.h"

namespace routescope::kernels::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
#ifdef ROUTESCOPE_SIMT
constexpr int kMaxBlocks = 5;  // few, so that blocks loop
#else
/// Blocks at most: six for each of 132 multiprocessors.
constexpr int kMaxBlocks = 792;
#endif

struct Shared {
  RotaryShared<kWarps> rotary;
  HalfTable gain[2][2];  // of q and k: lower, upper half
};

template <class T, bool kWhole>
__global__ void __launch_bounds__(kThreads, kWhole ? 6 : 3)
    qk_norm_rope_forward_kernel(T* out, const T* qkv, const float* __restrict__ q_gain,
                                const float* __restrict__ k_gain, const RotaryFrequencies frequencies,
                                const HeadLayout layout, int tokens, int seq_len, int heads, int kv_heads, float eps) {
  auto& shared = shared_memory<Shared>();
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const HeadLane<T, kWhole> lane(layout);
  const int half = layout.half, head_dim = 2 * half, turned = heads + kv_heads;
  const float per_column = 1.0f / static_cast<float>(head_dim);
  take_frequencies(shared.rotary, frequencies, half);
  for (int which = 0; which < 2; ++which) {
    const float* gain = which == 0 ? q_gain : k_gain;
    for (int side = 0; side < 2; ++side)
      lane.write(shared.gain[which][side], static_cast<int>(threadIdx.x), kThreads,
                 [=](int i) { return gain[side * half + i]; });
  }
  __syncthreads();

  for (int token = static_cast<int>(blockIdx.x) * kWarps + warp; token < tokens;
       token += static_cast<int>(gridDim.x) * kWarps) {
    const std::int64_t row = static_cast<std::int64_t>(token) * (turned + kv_heads) * head_dim;
    constexpr int kUnroll = 2;
    make_angles(shared.rotary, lane, static_cast<unsigned>(token % seq_len));
    for (int first = lane.head; first - lane.head < turned; first += kUnroll * lane.heads_at_once()) {
      RawPair raw[kUnroll];
#pragma unroll
      for (int k = 0; k < kUnroll; ++k) {
        const int head = first + k * lane.heads_at_once();
        raw[k] = lane.load(qkv + row + head * head_dim, head < turned);
      }
#pragma unroll
      for (int k = 0; k < kUnroll; ++k) {
        const int head = first + k * lane.heads_at_once();
        HalfPair<T> x = unpack<T>(raw[k]);
        float squares = 0;
#pragma unroll
        for (int i = 0; i < kVec<T>; ++i)
          squares += x.low.value[i] * x.low.value[i] + x.high.value[i] * x.high.value[i];
        const float s = rsqrtf(lane.head_sum(squares) * per_column + eps);
        const HalfTable(&gains)[2] = shared.gain[head < heads ? 0 : 1];
        const Vec<T> low_gain = lane.read(gains[0]), high_gain = lane.read(gains[1]);
        const Vec<T> cosine = lane.read(shared.rotary.cosine[warp]), sine = lane.read(shared.rotary.sine[warp]);
#pragma unroll
        for (int i = 0; i < kVec<T>; ++i) {
          const float low = x.low.value[i] * (s * low_gain.value[i]);
          const float high = x.high.value[i] * (s * high_gain.value[i]);
          x.low.value[i] = low * cosine.value[i] - high * sine.value[i];
          x.high.value[i] = high * cosine.value[i] + low * sine.value[i];
        }
        lane.store(out + row + head * head_dim, head < turned, x);
      }
    }
    const std::int64_t values = row + turned * head_dim;
    copy_row<kWhole>(out + values, qkv + values, kv_heads * head_dim);
  }
}

}  // namespace

void qk_norm_rope_forward(Tensor out, Tensor qkv, Tensor q_gain, Tensor k_gain, const AttentionShape& shape,
                          double theta, double eps, const Stream& stream) {
  require_one_type("qk_norm_rope_forward", out, qkv);
  with_type(out, [&]<class T>(T) {
    const HeadLayout layout = head_layout<T>("qk_norm_rope_forward", shape.head_dim);
    const bool whole = rows_aligned(out.as<T>(), layout.half) && rows_aligned(qkv.as<T>(), layout.half);
    const auto tokens = static_cast<int>(shape.tokens());
    const int blocks = std::min(ceil_div(tokens, kWarps), kMaxBlocks);
    launch("qk_norm_rope_forward", whole ? qk_norm_rope_forward_kernel<T, true> : qk_norm_rope_forward_kernel<T, false>,
           {dim3(static_cast<unsigned>(blocks)), kThreads, sizeof(Shared)}, stream, out.as<T>(), qkv.as<T>(),
           q_gain.as<float>(), k_gain.as<float>(), rotary_frequencies(shape.head_dim, theta), layout, tokens,
           static_cast<int>(shape.seq_len), static_cast<int>(shape.heads), static_cast<int>(shape.kv_heads),
           static_cast<float>(eps));
  });
}

}  // namespace routescope::kernels::cuda
