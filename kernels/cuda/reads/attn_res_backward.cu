// The part of an Attention Residuals read's gradient that cannot wait (MATH.md, "Gradients"). With g = dx gain:
//   dh = s_h (g - h s_h^2 <g, h> / d),   da_i = <dh, v_i>,   dlogit_i = alpha_i (da_i - sum_j alpha_j da_j),
//   dp += alpha_n dh + dlogit_n s_p (u - p s_p^2 <u, p> / d),
//   dgain += dx h s_h,   du += sum_i dlogit_i s_i v_i,   dquery += du key_gain,  dkey_gain += du query,  dbias +=
//   dlogit_n
// h is not kept but computed again from the sources. Rows of d elements of b bytes: dx, n sources, p and dp in, dh
// and dp out, (n + 5) d b bytes a token; aim: 85 % of the copy bandwidth. As in attn_res.cu a block takes a row, and up
// to 8 sources stay in registers, here for three uses; more are read again from the caches. A block keeps its sums over
// tokens in registers and writes one row of 2 d + 1 of them to the workspace; a second kernel adds these rows in order.
#include "kernels/backends.h"
#include "kernels/cuda/parts/column_sums.h"
#include "kernels/cuda/parts/reduce.h"
#include "kernels/cuda/reads/read.h"

namespace routescope::kernels::cuda {

namespace {

template <class T>
struct BackwardArguments : ReadArguments<T> {
  T* dh;
  float* dlogit;
  T* dp;
  const T* dx;
  bool alpha_is_given;
  float* partials;  // [blocks, 2 d + 1]: du, dgain, dbias
};

template <class L>
struct BackwardShared {
  float along[L::kMaxWarps][1];             // each warp's share of <dh, h>
  float source[L::kMaxWarps][kMaxSources];  // of <dh, v_i>
  float partial[L::kMaxWarps][1];           // of <dh, p>
  float weight[kMaxSources];                // dlogit_i s_i, the factor of v_i in du
  float partial_weight;                     // the factor of p, also as a completed source
  float along_u;                            // dlogit_n s_p, the factor of u in dp
  float back;                               // the factor of -p in dp
};

/// One warp makes dlogit of token t from the partial sums of all warps, and the factors that follow from it. Lane l
/// takes sources l, l + 32, ..; `scale` is s_l, loaded before. Returns dlogit_n.
template <class L>
__device__ float softmax_backward(BackwardShared<L>& shared, const BackwardArguments<typename L::T>& a,
                                  const SourceRows<typename L::T>& sources, float scale, std::int64_t t) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, count = sources.count, current = sources.columns() - 1;
  const std::int64_t row = t * sources.columns();
  const float alpha_p = a.alpha[row + current], alpha_alias = sources.alias >= 0 ? a.alpha[row + sources.alias] : 0.0f;
  const float da_p = over_warps(shared.partial, 0), s_p = a.inv_rms[t];
  float mean = 0;
#pragma unroll 1
  for (int i = lane; i < count; i += kWarp) {
    shared.weight[i] = over_warps(shared.source, i);
    mean = fmaf(a.alpha[row + sources.column(i)], shared.weight[i], mean);
  }
  mean = fmaf(alpha_alias + alpha_p, da_p, warp_sum(mean));
#pragma unroll 1
  for (int i = lane; i < count; i += kWarp) {
    const float dlogit = a.alpha[row + sources.column(i)] * (shared.weight[i] - mean);
    a.dlogit[row + sources.column(i)] = dlogit;
    shared.weight[i] = dlogit * (i < kWarp ? scale : sources.inv_rms[i][t]);
  }
  const float dlogit_p = alpha_p * (da_p - mean), dlogit_alias = alpha_alias * (da_p - mean);
  if (lane == 0) {
    if (sources.alias >= 0) a.dlogit[row + sources.alias] = dlogit_alias;
    a.dlogit[row + current] = dlogit_p;
    shared.partial_weight = (dlogit_p + dlogit_alias) * s_p;
    shared.along_u = dlogit_p * s_p;
    // s_p <u, p> is the kept score.
    shared.back = dlogit_p * s_p * s_p * a.score[row + current] / static_cast<float>(a.d);
  }
  return dlogit_p;
}

// NOLINTNEXTLINE(readability-function-size): one kernel, whose parts share registers, shared memory and barriers.
template <class L>
__global__ void __launch_bounds__(L::kMaxThreads, L::kMinBlocks)
    attn_res_backward_kernel(const BackwardArguments<typename L::T> a, const SourceRows<typename L::T> sources) {
  auto& shared = shared_memory<BackwardShared<L>>();
  constexpr int kRows = kTile<L>;
  const int d = a.d, count = sources.count, columns = sources.columns();
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const float per_column = 1.0f / static_cast<float>(d);
  Columns<L> u = load_key<L>(a.query, a.key_gain, d);
  Columns<L> gain = load_parameter<L>(a.norm_gain, d);
  const float* scales = warp == 0 && lane < count ? sources.inv_rms[lane] : nullptr;
  Columns<L> du{}, dgain{};
  float dbias = 0;
  Tile<L> tile;

  for (std::int64_t t = blockIdx.x; t < a.tokens; t += gridDim.x) {
    const std::int64_t offset = t * d, row = t * columns;
    tile.load(sources, 0, offset, d);
    const Packed<L> p = load_packed<L>(a.partial + offset, d), grad = load_packed<L>(a.dx + offset, d);
    // The general layout has no registers to keep this, nor the parameters below, until their next use.
    Packed<L> dp_before;
    if constexpr (L::kWhole) dp_before = load_packed<L>(a.dp + offset, d);
    PerSource alpha(count, [&](int i) { return a.alpha[row + sources.column(i)]; });
    const float scale = scales ? scales[t] : 0.0f, s_h = a.h_inv_rms[t], alpha_p = a.alpha[row + columns - 1];
    const float alpha_alias = sources.alias >= 0 ? a.alpha[row + sources.alias] : 0.0f;

    // Through the norm.
    Columns<L> h{}, dh = unpack<L>(grad);
    add_scaled<L>(h, alpha_alias + alpha_p, unpack<L>(p));
    for (int base = 0; base < count; base += kRows) {
      if (base > 0) tile.load(sources, base, offset, d);
      tile.each(count - base, [&](int j, const Columns<L>& v) { add_scaled<L>(h, alpha.of(base + j), v); });
    }
    if constexpr (!L::kWhole) gain = load_parameter<L>(a.norm_gain, d);
#pragma unroll
    for (int c = 0; c < L::kColumns; ++c) {
      const float scaled = s_h * dh.value[c];
      dgain.value[c] = fmaf(scaled, h.value[c], dgain.value[c]);
      dh.value[c] = scaled * gain.value[c];
    }
    float along[1] = {dot<L>(dh, h)};
    add_scaled<L>(dh, -block_sums(along, shared.along) * s_h * s_h * per_column, h);
    store_columns<L>(a.dh + offset, d, dh);

    // Through the softmax: the columns' part of <dh, v_i>, then dlogit, then the gradients that follow from it.
    if (!a.alpha_is_given) {
      for (int base = 0; base < count; base += kRows) {
        if (count > kRows) tile.load(sources, base, offset, d);
        float sums[kRows] = {};
        tile.each(count - base, [&](int j, const Columns<L>& v) { sums[j] = dot<L>(dh, v); });
        const float total = warp_sums(sums);
        if (lane < kRows && base + lane < count) shared.source[warp][base + lane] = total;
      }
      const float da_p = warp_sum(dot<L>(dh, unpack<L>(p)));
      if (lane == 0) shared.partial[warp][0] = da_p;
    }
    if constexpr (!L::kWhole) dp_before = load_packed<L>(a.dp + offset, d);
    Columns<L> dp = unpack<L>(dp_before);
    add_scaled<L>(dp, alpha_p, dh);
    __syncthreads();
    if (a.alpha_is_given) {
      for (int i = static_cast<int>(threadIdx.x); i < columns; i += static_cast<int>(blockDim.x)) a.dlogit[row + i] = 0;
    } else {
      if (warp == 0) dbias += softmax_backward(shared, a, sources, scale, t);
      __syncthreads();
      add_scaled<L>(du, shared.partial_weight, unpack<L>(p));
      for (int base = 0; base < count; base += kRows) {
        if (count > kRows) tile.load(sources, base, offset, d);
        tile.each(count - base, [&](int j, const Columns<L>& v) { add_scaled<L>(du, shared.weight[base + j], v); });
      }
      if constexpr (!L::kWhole) u = load_key<L>(a.query, a.key_gain, d);
      add_scaled<L>(dp, shared.along_u, u);
      add_scaled<L>(dp, -shared.back, unpack<L>(p));
    }
    store_columns<L>(a.dp + offset, d, dp);
  }

  float* partial = a.partials + std::int64_t{blockIdx.x} * (2 * d + 1);
  store_floats<L>(partial, d, du);
  store_floats<L>(partial + d, d, dgain);
  if (threadIdx.x == 0) partial[2 * d] = dbias;
}

/// Adds the blocks' sums, and from them the gradients of the parameters.
__global__ void __launch_bounds__(kColumnSumThreads)
    attn_res_gradients_kernel(float* dquery, float* dkey_gain, float* dnorm_gain, float* dbias, const float* query,
                              const float* key_gain, const float* partials, int blocks, int d) {
  column_sums(partials, blocks, 2 * d + 1, [=](int j, float sum) {
    if (j < d) {
      dquery[j] += sum * key_gain[j];
      dkey_gain[j] += sum * query[j];
    } else if (j < 2 * d) {
      dnorm_gain[j - d] += sum;
    } else if (dbias) {
      dbias[0] += sum;
    }
  });
}

template <class T>
void backward(BackwardArguments<T> a, const AttnResParamGrads& grads, const AttnResSources& sources,
              const Tensor& partial, const Stream& stream) {
  const char* name = "attn_res_backward";
  const SourceRows<T> rows = source_rows<T>(name, sources, partial);
  const bool whole = a.aligned() && rows_aligned(a.dh, a.d) && rows_aligned(a.dp, a.d) && rows_aligned(a.dx, a.d) &&
                     sources_aligned(rows, a.d);
  with_rows<T>(name, a.d, whole, [&]<class L>(L, int threads) {
    const auto blocks = static_cast<unsigned>(row_blocks(a.tokens, threads, kGradientBlocks));
    a.partials = Scratch(stream).take<float>(std::size_t{blocks} * static_cast<std::size_t>(2 * a.d + 1));
    launch(name, attn_res_backward_kernel<L>, {dim3(blocks), threads, sizeof(BackwardShared<L>)}, stream, a, rows);
    launch("attn_res_gradients", attn_res_gradients_kernel, column_sums_grid(2 * a.d + 1), stream,
           grads.query.as<float>(), grads.key_gain.as<float>(), grads.norm_gain.as<float>(), grads.bias.as<float>(),
           a.query, a.key_gain, a.partials, static_cast<int>(blocks), a.d);
  });
}

}  // namespace

void attn_res_backward(Tensor dh, Tensor dlogit, Tensor dp, const AttnResParamGrads& grads, Tensor dx,
                       const AttnResState& state, const AttnResSources& sources, const AttnResParams& params,
                       bool alpha_is_given, const Stream& stream) {
  require_one_type("attn_res_backward", dp, dh, dx, state.partial);
  with_type(dp, [&]<class T>(T) {
    backward<T>({{Tensor{}, Tensor{}, Tensor{}, state, params},
                 dh.as<T>(),
                 dlogit.as<float>(),
                 dp.as<T>(),
                 dx.as<T>(),
                 alpha_is_given,
                 nullptr},
                grads, sources, state.partial, stream);
  });
}

}  // namespace routescope::kernels::cuda
