// Causal grouped-query attention on tensor cores, forward, for bf16 and head_dim 64 or 128:
//   z_j = <q, k_j> / sqrt(head_dim) for j <= i,  lse = log sum exp z,  out = sum_j exp(z_j - lse) v_j
// as FlashAttention computes it (Dao et al. 2022, 2023): a block keeps a tile of queries and passes over the keys a
// tile at a time with a running maximum m and sum l; logits never reach device memory.
//
// qkv [tokens, (heads + 2 kv_heads) head_dim] as it is (strides, no repacking), out [tokens, heads*head_dim],
// lse [batch, heads, seq_len] f32. Per query head and token 4 head_dim (i + 1) flops; bytes: q and out once, 4
// head_dim; every query tile reads k and v of a head, from the L2 cache except for the first time. Bound by
// the tensor cores; mma.sync reaches about two thirds of what Hopper's wgmma does, so the aim is 350 TFLOP/s at
// head_dim 128 on an H200 and 190 on an A100, not measured yet. In a build with cuDNN, cuDNN is the default
// (attention.cu).
//
// Organisation: 4 warps with 32 queries each, so that a warp uses each piece of k or v from shared memory for two
// pieces of queries (with 16 queries a warp, shared memory would be the bound). The copies of k and v alternate: v's
// tile is copied during q k^T, the next tile of k during the softmax and the product with v. This hides the copies as a
// second stage would, in less memory: 56 KiB at head_dim 128, two blocks on a multiprocessor of capability 8.0 or 9.0.
// Exponentials are powers of two, with log2(e) folded into the scale. The weights are rounded to bf16 for their product
// with v, as in every flash attention; their sum l is not. The query tiles with most keys start first.
#include "kernels/cuda/attention/attention_builtin.h"
#include "kernels/cuda/attention/attention_tiles.h"

namespace routescope::kernels::cuda {

namespace {

constexpr int kRowTiles = 2;  // of 16 queries, a warp
constexpr int kQueries = kAttentionWarps * kRowTiles * 16;
/// Keys of a tile: as many as leave the weights and the output of two row tiles in registers.
template <int kHeadDim>
constexpr int kKeys = kHeadDim == 64 ? 64 : 48;
template <int kHeadDim>
struct ForwardShared {
  HeadTile<kQueries, kHeadDim> q;
  HeadTile<kKeys<kHeadDim>, kHeadDim> k;
  HeadTile<kKeys<kHeadDim>, kHeadDim> v;
};

/// The running maximum (of unscaled logits) and sum of each row that a lane has a part of: row 16 m + 8 h + lane / 4.
/// The sum is over the lane's own columns.
struct RunningSoftmax {
  float max[kRowTiles][2];
  float sum[kRowTiles][2];
};

/// Logits that a query must not see become -infinity. `first_key` and `first_query` are of the warp's tile.
template <int kColumns>
__device__ void hide_later_keys(FragmentC (&z)[kRowTiles][kColumns], int first_key, int first_query) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int key = first_key + 8 * n + 2 * (lane % 4) + i % 2;
        const int query = first_query + 16 * m + 8 * (i / 2) + lane / 4;
        if (key > query) z[m][n].value[i] = -INFINITY;
      }
    }
  }
}

/// Turns logits into weights relative to the new maximum, and rescales the sums so far to it.
template <int kHeadDim, int kColumns>
__device__ void exponentiate(FragmentC (&z)[kRowTiles][kColumns], FragmentC (&o)[kRowTiles][kHeadDim / 8],
                             RunningSoftmax& running, float scale_log2) {
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float largest = running.max[m][h];
#pragma unroll
      for (int n = 0; n < kColumns; ++n)
        largest = fmaxf(largest, fmaxf(z[m][n].value[2 * h], z[m][n].value[2 * h + 1]));
      largest = fmaxf(largest, __shfl_xor_sync(kFullMask, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(kFullMask, largest, 2));
      // The first key is seen by all queries, so from the first tile on the maximum is finite.
      const float factor = fast_exp2((running.max[m][h] - largest) * scale_log2), offset = largest * scale_log2;
      running.max[m][h] = largest;
      float sum = running.sum[m][h] * factor;
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
#pragma unroll
        for (int i = 2 * h; i < 2 * h + 2; ++i) {
          z[m][n].value[i] = fast_exp2(fmaf(z[m][n].value[i], scale_log2, -offset));
          sum += z[m][n].value[i];
        }
      }
      running.sum[m][h] = sum;
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; ++n) {
        o[m][n].value[2 * h] *= factor;
        o[m][n].value[2 * h + 1] *= factor;
      }
    }
  }
}

// NOLINTNEXTLINE(readability-function-size): one kernel, whose parts share registers, shared memory and barriers.
template <int kHeadDim>
__global__ void __launch_bounds__(kAttentionThreads, 2)
    attention_mma_forward_kernel(bf16* out, float* lse, const bf16* qkv, Heads shape) {
  auto& shared = shared_memory<ForwardShared<kHeadDim>>();
  constexpr int kTile = kKeys<kHeadDim>;
  const int seq_len = shape.seq_len, width = (shape.heads + 2 * shape.kv_heads) * kHeadDim;
  const int head = static_cast<int>(blockIdx.y), sequence = static_cast<int>(blockIdx.z);
  const int block_query = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kQueries;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp_row = static_cast<int>(threadIdx.x) / kWarp * (kRowTiles * 16), first_query = block_query + warp_row;
  const std::int64_t first_token = static_cast<std::int64_t>(sequence) * seq_len;
  const bf16* rows = qkv + first_token * width;
  const bf16* keys = rows + (shape.heads + head / shape.group()) * kHeadDim;
  const bf16* values = keys + shape.kv_heads * kHeadDim;

  FragmentC o[kRowTiles][kHeadDim / 8];
  RunningSoftmax running;
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; ++n) o[m][n] = {{0, 0, 0, 0}};
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      running.max[m][h] = -INFINITY;
      running.sum[m][h] = 0;
    }
  }

  const int end = min(block_query + kQueries, seq_len);
  shared.q.load_async(rows + static_cast<std::int64_t>(block_query) * width + head * kHeadDim, width,
                      seq_len - block_query);
  shared.k.load_async(keys, width, seq_len);
  close_copies();
  for (int first_key = 0; first_key < end; first_key += kTile) {
    // A warp whose queries all come before the tile only takes part in copies and barriers.
    const bool seen = first_key < first_query + kRowTiles * 16;
    FragmentC z[kRowTiles][kTile / 8];
    wait_for_copies<0>();
    __syncthreads();  // k has arrived, and no thread reads the previous v any more
    shared.v.load_async(values + static_cast<std::int64_t>(first_key) * width, width, seq_len - first_key);
    close_copies();
    if (seen) product_of_rows(z, shared.q, warp_row, shared.k);
    wait_for_copies<0>();
    __syncthreads();  // v has arrived, and no thread reads k any more
    if (first_key + kTile < end) {
      shared.k.load_async(keys + static_cast<std::int64_t>(first_key + kTile) * width, width,
                          seq_len - first_key - kTile);
      close_copies();
    }
    if (seen) {
      if (first_key + kTile - 1 > first_query) hide_later_keys(z, first_key, first_query);
      exponentiate<kHeadDim>(z, o, running, shape.scale * kLog2e);
      add_weighted_rows(o, z, shared.v);
    }
  }

  float inverse[kRowTiles][2];
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float sum = running.sum[m][h];
      sum += __shfl_xor_sync(kFullMask, sum, 1);
      sum += __shfl_xor_sync(kFullMask, sum, 2);
      inverse[m][h] = 1.0f / sum;
      const int query = first_query + 16 * m + 8 * h + lane / 4;
      if (lane % 4 == 0 && query < seq_len)
        lse[(static_cast<std::int64_t>(sequence) * shape.heads + head) * seq_len + query] =
            running.max[m][h] * shape.scale + logf(sum);
    }
  }
  const int out_width = shape.heads * kHeadDim;
  store_rows(out + (first_token + first_query) * out_width + head * kHeadDim, out_width, seq_len - first_query, o,
             inverse, shared.q, warp_row);
}

template <int kHeadDim>
void run(Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape, const Stream& stream) {
  const Grid grid{dim3(static_cast<unsigned>(ceil_div<std::int64_t>(shape.seq_len, kQueries)),
                       static_cast<unsigned>(shape.heads), static_cast<unsigned>(shape.batch)),
                  kAttentionThreads, sizeof(ForwardShared<kHeadDim>)};
  launch("attention_mma_forward", attention_mma_forward_kernel<kHeadDim>, grid, stream, out.as<bf16>(), lse.as<float>(),
         qkv.as<bf16>(), Heads(shape));
}

bool aligned(const Tensor& t) {
  return reinterpret_cast<std::uintptr_t>(t.data) % 16 == 0;
}

}  // namespace

bool attention_mma_takes(const Tensor& qkv, const Tensor& out, const AttentionShape& shape) {
  return qkv.dtype == DType::bf16 && aligned(qkv) && aligned(out) && (shape.head_dim == 64 || shape.head_dim == 128);
}

void attention_mma_forward(Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape, const Stream& stream) {
  if (shape.head_dim == 64)
    run<64>(out, lse, qkv, shape, stream);
  else
    run<128>(out, lse, qkv, shape, stream);
}

}  // namespace routescope::kernels::cuda
