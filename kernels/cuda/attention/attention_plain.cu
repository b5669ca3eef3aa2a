// Causal grouped-query attention without tensor cores, forward: f32 or bf16, any even head_dim up to 256, f32
// arithmetic.
//   z_j = <q, k_j> / sqrt(head_dim) for j <= i,  lse = log sum exp z,  out = sum_j exp(z_j - lse) v_j
// qkv [tokens, (heads + 2 kv_heads) head_dim], out [tokens, heads*head_dim], lse [batch, heads, seq_len] f32. It serves
// f32 runs, which compare the backends, and the heads of small models; bf16 with head_dim 64 or 128 goes to the tensor
// cores (attention_mma.cu). Bound by shared memory: the aim is a tenth of the card's f32 rate, not measured yet.
//
// A block has 16 queries of one head, 4 a warp, and passes over its keys 32 at a time, one a lane, with a running
// maximum and sum. Shared memory: up to 83 KiB at head_dim 256.
#include "kernels/cuda/attention/attention_builtin.h"
#include "kernels/cuda/attention/attention_plain.h"

namespace routescope::kernels::cuda {

namespace {

template <int kColumns>
struct PlainForwardShared {
  PlainTile<kPlainRows, kColumns> q;
  PlainTile<kWarp, kColumns> k;
  PlainTile<kWarp, kColumns> v;
  float weight[kPlainWarps][kPlainOwn][kWarp];
};

template <class T, int kColumns>
__global__ void __launch_bounds__(kPlainThreads)
    attention_plain_forward_kernel(T* out, float* lse, const T* qkv, PlainHeads shape) {
  auto& shared = shared_memory<PlainForwardShared<kColumns>>();
  const int head = static_cast<int>(blockIdx.y), kv_head = head / (shape.heads / shape.kv_heads);
  const int sequence = static_cast<int>(blockIdx.z), block_query = static_cast<int>(blockIdx.x) * kPlainRows;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int first_query = block_query + warp * kPlainOwn, end = min(block_query + kPlainRows, shape.seq_len);
  auto& weight = shared.weight[warp];

  shared.q.load_rows(qkv + shape.query(sequence, block_query, head), shape.width(), shape.seq_len - block_query,
                     shape.head_dim);
  float sum_v[kPlainOwn][kColumns], largest[kPlainOwn], sum[kPlainOwn];
#pragma unroll
  for (int r = 0; r < kPlainOwn; ++r) {
    largest[r] = -INFINITY;
    sum[r] = 0;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) sum_v[r][i] = 0;
  }
  for (int first_key = 0; first_key < end; first_key += kWarp) {
    __syncthreads();  // no thread reads the previous keys any more
    const int left = shape.seq_len - first_key;
    shared.k.load_rows(qkv + shape.key(sequence, first_key, kv_head), shape.width(), left, shape.head_dim);
    shared.v.load_rows(qkv + shape.value(sequence, first_key, kv_head), shape.width(), left, shape.head_dim);
    __syncthreads();
    float z[kPlainOwn];
    plain_products(z, shared.q, warp * kPlainOwn, shared.k, shape.head_dim);
#pragma unroll
    for (int r = 0; r < kPlainOwn; ++r) {
      const float logit = first_key + lane <= first_query + r ? z[r] * shape.scale : -INFINITY;
      // The first key is seen by all queries, so from the first tile on the maximum is finite.
      const float now = fmaxf(largest[r], warp_max(logit)), factor = expf(largest[r] - now), w = expf(logit - now);
      weight[r][lane] = w;
      sum[r] = sum[r] * factor + warp_sum(w);
      largest[r] = now;
#pragma unroll
      for (int i = 0; i < kColumns; ++i) sum_v[r][i] *= factor;
    }
    __syncwarp();
    plain_add_weighted(sum_v, weight, shared.v);
  }
#pragma unroll
  for (int r = 0; r < kPlainOwn; ++r) {
    const int query = first_query + r;
    if (query >= shape.seq_len) continue;
    plain_store(out + shape.out(sequence, query, head), sum_v[r], 1.0f / sum[r], shape.head_dim);
    if (lane == 0) lse[shape.statistic(sequence, query, head)] = largest[r] + logf(sum[r]);
  }
}

}  // namespace

void attention_plain_forward(Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape, const Stream& stream) {
  with_type(qkv, [&]<class T>(T) {
    with_columns(shape.head_dim, [&]<int kColumns>() {
      const Grid grid{dim3(static_cast<unsigned>(ceil_div<std::int64_t>(shape.seq_len, kPlainRows)),
                           static_cast<unsigned>(shape.heads), static_cast<unsigned>(shape.batch)),
                      kPlainThreads, sizeof(PlainForwardShared<kColumns>)};
      launch("attention_plain_forward", attention_plain_forward_kernel<T, kColumns>, grid, stream, out.as<T>(),
             lse.as<float>(), qkv.as<T>(), PlainHeads(shape));
    });
  });
}

}  // namespace routescope::kernels::cuda
