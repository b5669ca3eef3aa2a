// The gradient through rotary embedding and the per-head RMSNorm of q and k. With t = dout rotated by the negative
// angle and s as in the forward pass (made again from qkv):
//   dgain += sum over tokens and heads of t x s;    dx = s t gain - x s^3 <t gain, x> / head_dim;    dv is copied
// dqkv, dout, qkv [tokens, (heads + 2 kv_heads) head_dim]. Bytes a token: three times the heads of q and k and twice
// those of v. Aim: 85 % of the copy bandwidth. As in the forward pass a warp takes a token, but a block takes either
// the q heads or the k and v heads of many tokens: a lane then keeps the gradient of one gain in registers to the end,
// and each block writes one row of partial sums.
#include <algorithm>

#include "kernels/backends.h"
#include "kernels/cuda/parts/partials.h"
#include "kernels/cuda/rotary.h"

namespace routescope::kernels::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;

struct Shared {
  RotaryShared<kWarps> rotary;
  HalfTable gain[2];  // lower, upper half
  float dgain[kWarps][2 * kMaxHalf];
};

/// The heads of one gain, and the blocks that take them.
struct Part {
  const float* gain;
  float* partials;  // [blocks, head_dim]
  int first_head;
  int heads;
  int copied_heads;  // after these, to be copied
  int blocks;
};

// NOLINTNEXTLINE(readability-function-size): one kernel, whose parts share registers, shared memory and barriers.
template <class T, bool kWhole>
__global__ void __launch_bounds__(kThreads, kWhole ? 4 : 3)
    qk_norm_rope_backward_kernel(T* dqkv, const T* dout, const T* __restrict__ qkv, const Part queries, const Part keys,
                                 const RotaryFrequencies frequencies, const HeadLayout layout, int tokens, int seq_len,
                                 int width, float eps) {
  auto& shared = shared_memory<Shared>();
  const bool on_queries = static_cast<int>(blockIdx.x) < queries.blocks;
  const float* gain_row = on_queries ? queries.gain : keys.gain;
  const int first_head = on_queries ? queries.first_head : keys.first_head;
  const int heads = on_queries ? queries.heads : keys.heads;
  const int copied_heads = on_queries ? queries.copied_heads : keys.copied_heads;
  const int blocks = on_queries ? queries.blocks : keys.blocks;
  const int block = static_cast<int>(blockIdx.x) - (on_queries ? 0 : queries.blocks);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const HeadLane<T, kWhole> lane(layout);
  const int half = layout.half, head_dim = 2 * half;
  const float per_column = 1.0f / static_cast<float>(head_dim);
  take_frequencies(shared.rotary, frequencies, half);
  for (int side = 0; side < 2; ++side)
    lane.write(shared.gain[side], static_cast<int>(threadIdx.x), kThreads,
               [=](int i) { return gain_row[side * half + i]; });
  __syncthreads();

  HalfPair<T> dgain{};
  for (int token = block * kWarps + warp; token < tokens; token += blocks * kWarps) {
    const std::int64_t row = static_cast<std::int64_t>(token) * width + first_head * head_dim;
    RawPair next_dy = lane.load(dout + row + lane.head * head_dim, lane.head < heads);
    RawPair next_x = lane.load(qkv + row + lane.head * head_dim, lane.head < heads);
    make_angles(shared.rotary, lane, static_cast<unsigned>(token % seq_len));
#pragma unroll 1
    for (int head = lane.head; head - lane.head < heads; head += lane.heads_at_once()) {
      // The next heads are loaded while these are computed.
      const RawPair raw_dy = next_dy, raw_x = next_x;
      const int next = head + lane.heads_at_once();
      next_dy = lane.load(dout + row + next * head_dim, next < heads);
      next_x = lane.load(qkv + row + next * head_dim, next < heads);

      const HalfPair<T> dy = unpack<T>(raw_dy), x = unpack<T>(raw_x);
      HalfPair<T> turned;  // dy rotated back, times the gain
      HalfPair<T> tx;      // without the gain, times x
      {
        const Vec<T> cosine = lane.read(shared.rotary.cosine[warp]), sine = lane.read(shared.rotary.sine[warp]);
        const Vec<T> low_gain = lane.read(shared.gain[0]), high_gain = lane.read(shared.gain[1]);
#pragma unroll
        for (int i = 0; i < kVec<T>; ++i) {
          const float low = dy.low.value[i] * cosine.value[i] + dy.high.value[i] * sine.value[i];
          const float high = dy.high.value[i] * cosine.value[i] - dy.low.value[i] * sine.value[i];
          tx.low.value[i] = low * x.low.value[i];
          tx.high.value[i] = high * x.high.value[i];
          turned.low.value[i] = low * low_gain.value[i];
          turned.high.value[i] = high * high_gain.value[i];
        }
      }
      float squares = 0, along = 0;
#pragma unroll
      for (int i = 0; i < kVec<T>; ++i) {
        squares += x.low.value[i] * x.low.value[i] + x.high.value[i] * x.high.value[i];
        along += turned.low.value[i] * x.low.value[i] + turned.high.value[i] * x.high.value[i];
      }
      squares = lane.head_sum(squares);
      along = lane.head_sum(along);
      const float s = rsqrtf(squares * per_column + eps);
      const float back = s * s * s * along * per_column;
      HalfPair<T> dx;
#pragma unroll
      for (int i = 0; i < kVec<T>; ++i) {
        dgain.low.value[i] += s * tx.low.value[i];
        dgain.high.value[i] += s * tx.high.value[i];
        dx.low.value[i] = s * turned.low.value[i] - back * x.low.value[i];
        dx.high.value[i] = s * turned.high.value[i] - back * x.high.value[i];
      }
      lane.store(dqkv + row + head * head_dim, head < heads, dx);
    }
    copy_row<kWhole>(dqkv + row + heads * head_dim, dout + row + heads * head_dim, copied_heads * head_dim);
  }

  // The heads side by side on the warp, then the warps.
  for (int offset = lane.lanes; offset < kWarp; offset *= 2) {
#pragma unroll
    for (int i = 0; i < kVec<T>; ++i) {
      dgain.low.value[i] += __shfl_xor_sync(kFullMask, dgain.low.value[i], offset);
      dgain.high.value[i] += __shfl_xor_sync(kFullMask, dgain.high.value[i], offset);
    }
  }
  if (lane.head == 0) {
#pragma unroll
    for (int i = 0; i < kVec<T>; ++i) {
      if (lane.column + i >= layout.half) break;
      shared.dgain[warp][lane.column + i] = dgain.low.value[i];
      shared.dgain[warp][layout.half + lane.column + i] = dgain.high.value[i];
    }
  }
  __syncthreads();
  float* partials = (on_queries ? queries.partials : keys.partials) + static_cast<std::int64_t>(block) * head_dim;
  for (int j = static_cast<int>(threadIdx.x); j < head_dim; j += kThreads) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += shared.dgain[w][j];
    partials[j] = sum;
  }
}

}  // namespace

void qk_norm_rope_backward(Tensor dqkv, Tensor dq_gain, Tensor dk_gain, Tensor dout, Tensor qkv, Tensor q_gain,
                           Tensor k_gain, const AttentionShape& shape, double theta, double eps, const Stream& stream) {
  require_one_type("qk_norm_rope_backward", dqkv, dout, qkv);
  const auto tokens = static_cast<int>(shape.tokens()), head_dim = static_cast<int>(shape.head_dim);
  const auto heads = static_cast<int>(shape.heads), kv_heads = static_cast<int>(shape.kv_heads);
  if (tokens == 0) return;
  Scratch scratch(stream);
  auto* partials = scratch.take<float>(static_cast<std::size_t>(kRopePartials) * static_cast<std::size_t>(head_dim));
  // Blocks in proportion to what they move: three passes over q and k, two over v.
  const int most = ceil_div(tokens, kWarps);
  const int share = std::clamp(kRopePartials * 3 * heads / (3 * heads + 5 * kv_heads), 1, kRopePartials - 1);
  const int query_blocks = std::min(share, most), key_blocks = std::min(kRopePartials - share, most);
  const Part queries{q_gain.as<float>(), partials, 0, heads, 0, query_blocks};
  const Part keys{k_gain.as<float>(), partials + query_blocks * head_dim, heads, kv_heads, kv_heads, key_blocks};
  with_type(dout, [&]<class T>(T) {
    const HeadLayout layout = head_layout<T>("qk_norm_rope_backward", head_dim);
    const bool whole = rows_aligned(dqkv.as<T>(), layout.half) && rows_aligned(dout.as<T>(), layout.half) &&
                       rows_aligned(qkv.as<T>(), layout.half);
    launch("qk_norm_rope_backward",
           whole ? qk_norm_rope_backward_kernel<T, true> : qk_norm_rope_backward_kernel<T, false>,
           {dim3(static_cast<unsigned>(query_blocks + key_blocks)), kThreads, sizeof(Shared)}, stream, dqkv.as<T>(),
           dout.as<T>(), qkv.as<T>(), queries, keys, rotary_frequencies(head_dim, theta), layout, tokens,
           static_cast<int>(shape.seq_len), static_cast<int>(shape.packed_width()), static_cast<float>(eps));
  });
  add_partials(dq_gain.as<float>(), queries.partials, query_blocks, head_dim, stream);
  add_partials(dk_gain.as<float>(), keys.partials, key_blocks, head_dim, stream);
}

}  // namespace routescope::kernels::cuda
