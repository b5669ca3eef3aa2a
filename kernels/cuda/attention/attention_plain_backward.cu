// The gradient of causal grouped-query attention without tensor cores: f32 or bf16, any even head_dim up to 256.
//   w_ij = exp(<q_i, k_j> / sqrt(head_dim) - lse_i) for j <= i,  dz_ij = w_ij (<dout_i, v_j> - delta_i),
//   dq_i = sum_j dz_ij k_j / sqrt(head_dim),  dk_j = sum_i dz_ij q_i / sqrt(head_dim),  dv_j = sum_i w_ij dout_i
// Shapes and uses as in attention_plain.cu; delta from attention_delta. Two launches of one kernel: in the first a
// block owns queries and passes over the keys; in the second it owns keys and passes over the queries of all heads of
// their group, in order (as in attention_mma_backward.cu, for the same reason: the same bits in every run). Shared
// memory: up to 101 KiB at head_dim 256.
#include "kernels/cuda/attention/attention_builtin.h"
#include "kernels/cuda/attention/attention_plain.h"

namespace routescope::kernels::cuda {

namespace {

template <int kColumns>
struct PlainBackwardShared {
  PlainTile<kPlainRows, kColumns> own[2];  // q, dout or k, v
  PlainTile<kWarp, kColumns> other[2];     // k, v or q, dout
  float weight[kPlainWarps][kPlainOwn][kWarp];
  float gradient[kPlainWarps][kPlainOwn][kWarp];
};

// NOLINTNEXTLINE(readability-function-size): one kernel, whose parts share registers, shared memory and barriers.
template <class T, int kColumns, bool kOwnsKeys>
__global__ void __launch_bounds__(kPlainThreads)
    attention_plain_backward_kernel(T* dqkv, const T* dout, const float* lse, const float* delta, const T* qkv,
                                    PlainHeads shape) {
  auto& shared = shared_memory<PlainBackwardShared<kColumns>>();
  const int sequence = static_cast<int>(blockIdx.z), own_head = static_cast<int>(blockIdx.y);
  const int group = shape.heads / shape.kv_heads, kv_head = kOwnsKeys ? own_head : own_head / group;
  const int seq_len = shape.seq_len, head_dim = shape.head_dim;
  const int block_row = static_cast<int>(blockIdx.x) * kPlainRows, valid = seq_len - block_row;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp_row = warp * kPlainOwn, first_own = block_row + warp_row;
  auto& weight = shared.weight[warp];
  auto& gradient = shared.gradient[warp];

  if (kOwnsKeys) {
    shared.own[0].load_rows(qkv + shape.key(sequence, block_row, kv_head), shape.width(), valid, head_dim);
    shared.own[1].load_rows(qkv + shape.value(sequence, block_row, kv_head), shape.width(), valid, head_dim);
  } else {
    shared.own[0].load_rows(qkv + shape.query(sequence, block_row, own_head), shape.width(), valid, head_dim);
    shared.own[1].load_rows(dout + shape.out(sequence, block_row, own_head), shape.out_width(), valid, head_dim);
  }
  float sum_a[kPlainOwn][kColumns], sum_b[kPlainOwn][kColumns];
#pragma unroll
  for (int r = 0; r < kPlainOwn; ++r) {
#pragma unroll
    for (int i = 0; i < kColumns; ++i) sum_a[r][i] = sum_b[r][i] = 0;
  }
  const int begin = kOwnsKeys ? block_row / kWarp * kWarp : 0;
  const int end = kOwnsKeys ? seq_len : min(block_row + kPlainRows, seq_len);
  for (int member = 0; member < (kOwnsKeys ? group : 1); ++member) {
    const int head = kOwnsKeys ? kv_head * group + member : own_head;
    for (int first = begin; first < end; first += kWarp) {
      __syncthreads();  // no thread reads the previous rows any more
      const int left = seq_len - first;
      if (kOwnsKeys) {
        shared.other[0].load_rows(qkv + shape.query(sequence, first, head), shape.width(), left, head_dim);
        shared.other[1].load_rows(dout + shape.out(sequence, first, head), shape.out_width(), left, head_dim);
      } else {
        shared.other[0].load_rows(qkv + shape.key(sequence, first, kv_head), shape.width(), left, head_dim);
        shared.other[1].load_rows(qkv + shape.value(sequence, first, kv_head), shape.width(), left, head_dim);
      }
      __syncthreads();
      float z[kPlainOwn], e[kPlainOwn];
      plain_products(z, shared.own[0], warp_row, shared.other[0], head_dim);
      plain_products(e, shared.own[1], warp_row, shared.other[1], head_dim);
#pragma unroll
      for (int r = 0; r < kPlainOwn; ++r) {
        const int query = kOwnsKeys ? first + lane : first_own + r, key = kOwnsKeys ? first_own + r : first + lane;
        const bool seen = key <= query && query < seq_len;
        const std::int64_t at = shape.statistic(sequence, seen ? query : 0, head);
        const float w = seen ? expf(z[r] * shape.scale - lse[at]) : 0.0f;
        if (kOwnsKeys) weight[r][lane] = w;
        gradient[r][lane] = seen ? w * (e[r] - delta[at]) * shape.scale : 0.0f;
      }
      __syncwarp();
      plain_add_weighted(sum_a, gradient, shared.other[0]);
      if (kOwnsKeys) plain_add_weighted(sum_b, weight, shared.other[1]);
    }
  }
#pragma unroll
  for (int r = 0; r < kPlainOwn; ++r) {
    const int row = first_own + r;
    if (row >= seq_len) continue;
    if (kOwnsKeys) {
      plain_store(dqkv + shape.key(sequence, row, kv_head), sum_a[r], 1.0f, head_dim);
      plain_store(dqkv + shape.value(sequence, row, kv_head), sum_b[r], 1.0f, head_dim);
    } else {
      plain_store(dqkv + shape.query(sequence, row, own_head), sum_a[r], 1.0f, head_dim);
    }
  }
}

template <class T, int kColumns, bool kOwnsKeys>
void run(Tensor dqkv, Tensor dout, Tensor lse, const float* delta, Tensor qkv, const AttentionShape& shape,
         const Stream& stream) {
  const Grid grid{
      dim3(static_cast<unsigned>(ceil_div<std::int64_t>(shape.seq_len, kPlainRows)),
           static_cast<unsigned>(kOwnsKeys ? shape.kv_heads : shape.heads), static_cast<unsigned>(shape.batch)),
      kPlainThreads, sizeof(PlainBackwardShared<kColumns>)};
  launch(kOwnsKeys ? "attention_plain_backward (dk, dv)" : "attention_plain_backward (dq)",
         attention_plain_backward_kernel<T, kColumns, kOwnsKeys>, grid, stream, dqkv.as<T>(), dout.as<T>(),
         lse.as<float>(), delta, qkv.as<T>(), PlainHeads(shape));
}

}  // namespace

void attention_plain_backward(Tensor dqkv, Tensor dout, Tensor lse, const float* delta, Tensor qkv,
                              const AttentionShape& shape, const Stream& stream) {
  with_type(qkv, [&]<class T>(T) {
    with_columns(shape.head_dim, [&]<int kColumns>() {
      run<T, kColumns, false>(dqkv, dout, lse, delta, qkv, shape, stream);
      run<T, kColumns, true>(dqkv, dout, lse, delta, qkv, shape, stream);
    });
  });
}

}  // namespace routescope::kernels::cuda
