// A number for each query, which the gradient of attention needs:
//   delta [batch, heads, seq_len] f32 = <dout, out> of the query's head, from two tensors [tokens, heads*head_dim].
// Moves 2 heads*head_dim elements a token in (bf16: 4 heads*head_dim bytes) and 4 heads bytes out; aim: 90 % of the
// card's copy bandwidth. A group of lanes takes one head of one token, and a lane 16 bytes of both tensors. Groups of a
// block lie one after another in memory, so the loads of a block are contiguous.
#include "kernels/cuda/attention/attention_builtin.h"
#include "kernels/cuda/parts/vec.h"

namespace routescope::kernels::cuda {

namespace {

constexpr int kThreads = 256;

/// Sum over neighbouring groups of kLanes lanes; all 32 take part.
template <int kLanes>
__device__ float group_sum(float value) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(kFullMask, value, offset);
  return value;
}

template <class T, int kLanes>
__global__ void __launch_bounds__(kThreads)
    attention_delta_kernel(float* delta, const T* dout, const T* out, std::int64_t rows, int seq_len, int heads,
                           int head_dim, bool aligned) {
  const std::int64_t row = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kLanes;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  float sum = 0;
  if (row < rows) {
    for (int begin = lane * kVec<T>; begin < head_dim; begin += kLanes * kVec<T>) {
      const Vec<T> a = load_row(dout + row * head_dim, begin, head_dim, aligned);
      const Vec<T> b = load_row(out + row * head_dim, begin, head_dim, aligned);
#pragma unroll
      for (int i = 0; i < kVec<T>; ++i) sum = fmaf(a.value[i], b.value[i], sum);
    }
  }
  sum = group_sum<kLanes>(sum);
  if (lane == 0 && row < rows) {
    const std::int64_t token = row / heads, head = row % heads, sequence = token / seq_len;
    delta[(sequence * heads + head) * seq_len + token % seq_len] = sum;
  }
}

template <class T, int kLanes>
void run(float* delta, Tensor dout, Tensor out, const AttentionShape& shape, const Stream& stream) {
  const std::int64_t rows = shape.tokens() * shape.heads;
  const bool aligned = rows_aligned(dout.as<T>(), shape.head_dim) && rows_aligned(out.as<T>(), shape.head_dim);
  launch("attention_delta", attention_delta_kernel<T, kLanes>,
         {dim3(static_cast<unsigned>(ceil_div<std::int64_t>(rows * kLanes, kThreads))), kThreads}, stream, delta,
         dout.as<T>(), out.as<T>(), rows, static_cast<int>(shape.seq_len), static_cast<int>(shape.heads),
         static_cast<int>(shape.head_dim), aligned);
}

}  // namespace

void attention_delta(float* delta, Tensor dout, Tensor out, const AttentionShape& shape, const Stream& stream) {
  with_type(out, [&]<class T>(T) {
    if (shape.head_dim <= 8 * kVec<T>)
      run<T, 8>(delta, dout, out, shape, stream);
    else
      run<T, 16>(delta, dout, out, shape, stream);
  });
}

}  // namespace routescope::kernels::cuda
