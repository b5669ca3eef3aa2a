// The gradient of causal grouped-query attention on tensor cores, for bf16 and head_dim 64 or 128:
//   w_ij = exp(<q_i, k_j> / sqrt(head_dim) - lse_i) for j <= i,  dz_ij = w_ij (<dout_i, v_j> - delta_i),
//   dq_i = sum_j dz_ij k_j / sqrt(head_dim),  dk_j = sum_i dz_ij q_i / sqrt(head_dim),  dv_j = sum_i w_ij dout_i
// with delta_i = <dout_i, out_i> from attention_delta. Shapes as in the forward pass (attention_mma.cu).
//
// Two launches of one kernel. In the first a block owns a tile of queries and passes over the keys: q k^T, dout v^T, dz
// k. In the second it owns a tile of keys and passes over the queries of all heads of their group, in order: k q^T, v
// dout^T, dz^T q, w^T dout. These are 7 products. 5 would do if blocks that own keys also summed dq, but this needs
// atomics, whose order changes in every run, or a buffer of partial sums as large as the number of key tiles times dq.
// 7 products give the same bits in every run. 14 head_dim flops per query, key and head; bound by the tensor cores; the
// aim is 250 TFLOP/s (of the 7 products) at head_dim 128 on an H200, not measured yet.
//
// Organisation: both launches have the same form. With own rows (a, b) and the others (a', b'), which is (q, dout) and
// (k, v) or the other way round:
//   z = a a'^T,  e = b b'^T,  w and dz from z and e, elementwise;  sum_a += dz a',  and where keys are owned sum_b += w
//   b'.
// A warp holds the sums of its own rows in registers. w and dz stay in registers too, since C of a product is A of the
// next (mma.h). The other rows come in tiles of 32, two of them in shared memory: one is used while the next is copied,
// with one barrier a tile. head_dim 128: 64 KiB where keys are owned (two blocks on a
// multiprocessor of capability 8.0 or 9.0), 96 KiB where queries are (one on 8.0, two on 9.0).
#include "kernels/cuda/attention/attention_builtin.h"
#include "kernels/cuda/attention/attention_tiles.h"

namespace routescope::kernels::cuda {

namespace {

constexpr int kOthers = 32;

/// Row tiles of 16 that a warp owns: as many as its registers can hold the sums of.
template <int kHeadDim, bool kOwnsKeys>
constexpr int kRowTiles = kOwnsKeys ? 128 / kHeadDim : 2;
template <int kHeadDim, bool kOwnsKeys>
constexpr int kOwn = kAttentionWarps * 16 * kRowTiles<kHeadDim, kOwnsKeys>;

template <int kHeadDim, bool kOwnsKeys>
struct BackwardShared {
  HeadTile<kOwn<kHeadDim, kOwnsKeys>, kHeadDim> own[2];  // q, dout or k, v
  struct Stage {
    HeadTile<kOthers, kHeadDim> other[2];  // k, v or q, dout
    float lse[kOthers];                    // of queries, where these are the others
    float delta[kOthers];
  } stage[2];
};

/// Where a block's rows are in device memory.
template <int kHeadDim>
struct Places {
  int width;      // of a row of qkv
  int out_width;  // of a row of dout
  int seq_len;
  std::int64_t sequence;
  const Heads& shape;

  __device__ explicit Places(const Heads& heads)
      : width((heads.heads + 2 * heads.kv_heads) * kHeadDim),
        out_width(heads.heads * kHeadDim),
        seq_len(heads.seq_len),
        sequence(blockIdx.z),
        shape(heads) {}
  __device__ std::int64_t packed(int row, int head) const {
    return (sequence * seq_len + row) * width + head * kHeadDim;
  }
  __device__ std::int64_t query(int row, int head) const { return packed(row, head); }
  __device__ std::int64_t key(int row, int kv_head) const { return packed(row, shape.heads + kv_head); }
  __device__ std::int64_t value(int row, int kv_head) const {
    return packed(row, shape.heads + shape.kv_heads + kv_head);
  }
  __device__ std::int64_t out(int row, int head) const {
    return (sequence * seq_len + row) * out_width + head * kHeadDim;
  }
  __device__ std::int64_t statistic(int row, int head) const { return (sequence * shape.heads + head) * seq_len + row; }
};

/// z becomes w, e becomes dz (without the factor 1 / sqrt(head_dim), which the sums get in the end). `own` and `other`
/// are the first row of the warp's and of the other tile; lse (times log2(e)) and delta are of the queries, by row or
/// by column.
template <int kRows, bool kOwnsKeys, bool kMasked>
__device__ void weights_and_gradients(FragmentC (&z)[kRows][kOthers / 8], FragmentC (&e)[kRows][kOthers / 8], int own,
                                      int other, float scale_log2, const float (&row_lse)[kRows][2],
                                      const float (&row_delta)[kRows][2], const float* column_lse,
                                      const float* column_delta) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int n = 0; n < kOthers / 8; ++n) {
    const int column = 8 * n + 2 * (lane % 4);
    float2 lse{}, delta{};
    if (kOwnsKeys) {
      lse = *reinterpret_cast<const float2*>(column_lse + column);
      delta = *reinterpret_cast<const float2*>(column_delta + column);
      lse.x *= kLog2e;
      lse.y *= kLog2e;
    }
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int from_own = own + 16 * m + 8 * (i / 2) + lane / 4, from_other = other + column + i % 2;
        const bool hidden = kMasked && (kOwnsKeys ? from_own > from_other : from_other > from_own);
        const float of_lse = kOwnsKeys ? (i % 2 == 0 ? lse.x : lse.y) : row_lse[m][i / 2];
        const float of_delta = kOwnsKeys ? (i % 2 == 0 ? delta.x : delta.y) : row_delta[m][i / 2];
        const float w = hidden ? 0.0f : fast_exp2(fmaf(z[m][n].value[i], scale_log2, -of_lse));
        z[m][n].value[i] = w;
        e[m][n].value[i] = w * (e[m][n].value[i] - of_delta);
      }
    }
  }
}

// NOLINTNEXTLINE(readability-function-size): one kernel, whose parts share registers, shared memory and barriers.
template <int kHeadDim, bool kOwnsKeys>
__global__ void __launch_bounds__(kAttentionThreads, 2)
    attention_mma_backward_kernel(bf16* dqkv, const bf16* dout, const float* lse, const float* delta, const bf16* qkv,
                                  Heads shape) {
  constexpr int kRows = kRowTiles<kHeadDim, kOwnsKeys>, kOwned = kOwn<kHeadDim, kOwnsKeys>;
  auto& shared = shared_memory<BackwardShared<kHeadDim, kOwnsKeys>>();
  const Places<kHeadDim> places(shape);
  const int seq_len = shape.seq_len, group = shape.group();
  // Own tiles that see (or are seen by) most others start first.
  const int block_row = static_cast<int>(kOwnsKeys ? blockIdx.x : gridDim.x - 1 - blockIdx.x) * kOwned;
  const int own_head = static_cast<int>(blockIdx.y), kv_head = kOwnsKeys ? own_head : own_head / group;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp_row = static_cast<int>(threadIdx.x) / kWarp * (16 * kRows), first_own = block_row + warp_row;
  const int valid = seq_len - block_row;

  // Steps: the tiles of others from first_tile on, for each head of the group where queries are the others.
  const int first_tile = kOwnsKeys ? block_row / kOthers : 0;
  const int tiles = ceil_div(kOwnsKeys ? seq_len : min(block_row + kOwned, seq_len), kOthers) - first_tile;
  const int steps = kOwnsKeys ? group * tiles : tiles;
  const auto begin_copies = [&](int step) {
    auto& stage = shared.stage[step % 2];
    const int row = (first_tile + step % tiles) * kOthers, left = seq_len - row;
    if (kOwnsKeys) {
      const int head = kv_head * group + step / tiles;
      stage.other[0].load_async(qkv + places.query(row, head), places.width, left);
      stage.other[1].load_async(dout + places.out(row, head), places.out_width, left);
      // Rows beyond the last query are zero, and add nothing to any sum.
      const int i = static_cast<int>(threadIdx.x) % kOthers;
      if (threadIdx.x < kOthers) copy_async_4(stage.lse + i, lse + places.statistic(row + i, head), i < left);
      if (threadIdx.x >= kAttentionThreads - kOthers)
        copy_async_4(stage.delta + i, delta + places.statistic(row + i, head), i < left);
    } else {
      stage.other[0].load_async(qkv + places.key(row, kv_head), places.width, left);
      stage.other[1].load_async(qkv + places.value(row, kv_head), places.width, left);
    }
    close_copies();
  };

  if (kOwnsKeys) {
    shared.own[0].load_async(qkv + places.key(block_row, kv_head), places.width, valid);
    shared.own[1].load_async(qkv + places.value(block_row, kv_head), places.width, valid);
  } else {
    shared.own[0].load_async(qkv + places.query(block_row, own_head), places.width, valid);
    shared.own[1].load_async(dout + places.out(block_row, own_head), places.out_width, valid);
  }
  begin_copies(0);

  FragmentC sum_a[kRows][kHeadDim / 8], sum_b[kOwnsKeys ? kRows : 1][kHeadDim / 8];
  float row_lse[kRows][2], row_delta[kRows][2];
#pragma unroll
  for (int m = 0; m < kRows; ++m) {
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; ++n) {
      sum_a[m][n] = {{0, 0, 0, 0}};
      if (kOwnsKeys) sum_b[m][n] = {{0, 0, 0, 0}};
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = first_own + 16 * m + 8 * h + lane / 4;
      const bool present = !kOwnsKeys && row < seq_len;
      row_lse[m][h] = present ? lse[places.statistic(row, own_head)] * kLog2e : 0.0f;
      row_delta[m][h] = present ? delta[places.statistic(row, own_head)] : 0.0f;
    }
  }

  for (int step = 0; step < steps; ++step) {
    wait_for_copies<0>();
    __syncthreads();  // this step's tiles have arrived, and no thread reads those of the previous step
    if (step + 1 < steps) begin_copies(step + 1);
    const auto& stage = shared.stage[step % 2];
    const int other = (first_tile + step % tiles) * kOthers;
    // A warp whose rows see none of the others, nor are seen by them, only takes part in copies and barriers.
    const int last_own = first_own + 16 * kRows - 1, last_other = other + kOthers - 1;
    if (kOwnsKeys ? last_other < first_own : other > last_own) continue;
    FragmentC z[kRows][kOthers / 8], e[kRows][kOthers / 8];
    product_of_rows(z, shared.own[0], warp_row, stage.other[0]);
    product_of_rows(e, shared.own[1], warp_row, stage.other[1]);
    const float scale_log2 = shape.scale * kLog2e;
    if (kOwnsKeys ? last_own > other : last_other > first_own)
      weights_and_gradients<kRows, kOwnsKeys, true>(z, e, first_own, other, scale_log2, row_lse, row_delta, stage.lse,
                                                    stage.delta);
    else
      weights_and_gradients<kRows, kOwnsKeys, false>(z, e, first_own, other, scale_log2, row_lse, row_delta, stage.lse,
                                                     stage.delta);
    if constexpr (kOwnsKeys) add_weighted_rows(sum_b, z, stage.other[1]);
    add_weighted_rows(sum_a, e, stage.other[0]);
  }

  float scale[kRows][2], one[kRows][2];
#pragma unroll
  for (int m = 0; m < kRows; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      scale[m][h] = shape.scale;
      one[m][h] = 1;
    }
  }
  const int left = seq_len - first_own;
  if constexpr (kOwnsKeys) {
    store_rows(dqkv + places.key(first_own, kv_head), places.width, left, sum_a, scale, shared.own[0], warp_row);
    store_rows(dqkv + places.value(first_own, kv_head), places.width, left, sum_b, one, shared.own[1], warp_row);
  } else {
    store_rows(dqkv + places.query(first_own, own_head), places.width, left, sum_a, scale, shared.own[0], warp_row);
  }
}

template <int kHeadDim, bool kOwnsKeys>
void run(Tensor dqkv, Tensor dout, Tensor lse, const float* delta, Tensor qkv, const AttentionShape& shape,
         const Stream& stream) {
  const std::int64_t own_heads = kOwnsKeys ? shape.kv_heads : shape.heads;
  const Grid grid{dim3(static_cast<unsigned>(ceil_div<std::int64_t>(shape.seq_len, kOwn<kHeadDim, kOwnsKeys>)),
                       static_cast<unsigned>(own_heads), static_cast<unsigned>(shape.batch)),
                  kAttentionThreads, sizeof(BackwardShared<kHeadDim, kOwnsKeys>)};
  launch(kOwnsKeys ? "attention_mma_backward (dk, dv)" : "attention_mma_backward (dq)",
         attention_mma_backward_kernel<kHeadDim, kOwnsKeys>, grid, stream, dqkv.as<bf16>(), dout.as<bf16>(),
         lse.as<float>(), delta, qkv.as<bf16>(), Heads(shape));
}

}  // namespace

void attention_mma_backward(Tensor dqkv, Tensor dout, Tensor lse, const float* delta, Tensor qkv,
                            const AttentionShape& shape, const Stream& stream) {
  if (shape.head_dim == 64) {
    run<64, false>(dqkv, dout, lse, delta, qkv, shape, stream);
    run<64, true>(dqkv, dout, lse, delta, qkv, shape, stream);
  } else {
    run<128, false>(dqkv, dout, lse, delta, qkv, shape, stream);
    run<128, true>(dqkv, dout, lse, delta, qkv, shape, stream);
  }
}

}  // namespace routescope::kernels::cuda
