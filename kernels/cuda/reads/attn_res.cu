// The fused Attention Residuals read (MATH.md, "Residual stream and reads"):
//   p = p_in + y,  s_i = 1 / rms(v_i),  alpha = softmax_i(s_i <u, v_i> + B_i),  h = sum_i alpha_i v_i,
//   x = h gain / rms(h);   u = query * key_gain,  v = n completed sources and p.
// Rows of d elements of b bytes: p_in, y and n sources in, p and x out, (n + 4) d b bytes a token; aim: 90 % of the
// copy bandwidth. A block takes a row (row_block.h). All loads of a token are in flight together. Up to 8 sources stay
// in registers between their two uses; more are read a second time, from the caches. All n + 2 sums over d are made at
// once, so a token costs two reductions over the block: one for the scores, one for rms(h).
#include "kernels/backends.h"
#include "kernels/cuda/parts/reduce.h"
#include "kernels/cuda/reads/read.h"

namespace routescope::kernels::cuda {

namespace {

template <class T>
struct ForwardArguments : ReadArguments<T> {
  const float* alpha_override;
};

template <class L>
struct ForwardShared {
  float source[L::kMaxWarps][kMaxSources];  // each warp's share of <u, v_i>
  float partial[L::kMaxWarps][2];           // of <p, p> and <u, p>
  float h[L::kMaxWarps][1];                 // of <h, h>
  float weight[kMaxSources];                // alpha_i
  float partial_weight;                     // alpha_n, and that of the source which is the partial
};

/// One warp makes the weights of token t from the partial sums of all warps, and stores scores and weights. Lane l
/// takes sources l, l + 32, ..; `scale` is s_l, loaded before.
template <class L>
__device__ void weigh(ForwardShared<L>& shared, const ForwardArguments<typename L::T>& a,
                      const SourceRows<typename L::T>& sources, float scale, std::int64_t t) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, count = sources.count, current = sources.columns() - 1;
  const std::int64_t row = t * sources.columns();
  const auto given = [&](int column) { return a.logit_bias ? a.logit_bias[column] : 0.0f; };
  const float s_p = rsqrtf(over_warps(shared.partial, 0) / static_cast<float>(a.d) + a.eps);
  const float score_p = s_p * over_warps(shared.partial, 1);
  const float logit_p = score_p + given(current) + (a.bias ? a.bias[0] : 0.0f);
  const float logit_alias = sources.alias >= 0 ? score_p + given(sources.alias) : -INFINITY;

  // The softmax. At least one logit is finite; -inf gets weight 0.
  float largest = fmaxf(logit_p, logit_alias);
#pragma unroll 1
  for (int i = lane; i < count; i += kWarp) {
    const float score = over_warps(shared.source, i) * (i < kWarp ? scale : sources.inv_rms[i][t]);
    a.score[row + sources.column(i)] = score;
    shared.weight[i] = score + given(sources.column(i));
    largest = fmaxf(largest, shared.weight[i]);
  }
  largest = warp_max(largest);
  float sum = 0;
#pragma unroll 1
  for (int i = lane; i < count; i += kWarp) sum += shared.weight[i] = expf(shared.weight[i] - largest);
  float alpha_p = expf(logit_p - largest), alpha_alias = expf(logit_alias - largest);
  const float normal = 1.0f / (warp_sum(sum) + alpha_alias + alpha_p);
  alpha_p *= normal;
  alpha_alias *= normal;
  if (a.alpha_override) {
    alpha_p = a.alpha_override[row + current];
    alpha_alias = sources.alias >= 0 ? a.alpha_override[row + sources.alias] : 0.0f;
  }
#pragma unroll 1
  for (int i = lane; i < count; i += kWarp) {
    const int column = sources.column(i);
    const float alpha = a.alpha_override ? a.alpha_override[row + column] : shared.weight[i] * normal;
    shared.weight[i] = alpha;
    a.alpha[row + column] = alpha;
  }
  if (lane != 0) return;
  shared.partial_weight = alpha_alias + alpha_p;
  if (sources.alias >= 0) {
    a.score[row + sources.alias] = score_p;
    a.alpha[row + sources.alias] = alpha_alias;
  }
  a.score[row + current] = score_p;
  a.alpha[row + current] = alpha_p;
  a.inv_rms[t] = s_p;
}

template <class L>
__global__ void __launch_bounds__(L::kMaxThreads, L::kMaxThreads == 128 ? 5 : L::kMinBlocks)
    attn_res_forward_kernel(const ForwardArguments<typename L::T> a, const SourceRows<typename L::T> sources) {
  auto& shared = shared_memory<ForwardShared<L>>();
  constexpr int kRows = kTile<L>;
  const int d = a.d, count = sources.count;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const float per_column = 1.0f / static_cast<float>(d);
  const Columns<L> u = load_key<L>(a.query, a.key_gain, d), gain = load_parameter<L>(a.norm_gain, d);
  const float* scales = warp == 0 && lane < count ? sources.inv_rms[lane] : nullptr;
  Tile<L> tile;

  for (std::int64_t t = blockIdx.x; t < a.tokens; t += gridDim.x) {
    const std::int64_t offset = t * d;
    const float scale = scales ? scales[t] : 0.0f;
    tile.load(sources, 0, offset, d);
    const Columns<L> p = add_rows<L>(a.p_in, a.y, offset, d);
    store_columns<L>(a.partial + offset, d, p);

    // The inner products with u, and the partial's norm.
    for (int base = 0; base < count; base += kRows) {
      if (base > 0) tile.load(sources, base, offset, d);
      float sums[kRows] = {};
      tile.each(count - base, [&](int j, const Columns<L>& v) { sums[j] = dot<L>(u, v); });
      const float total = warp_sums(sums);
      if (lane < kRows && base + lane < count) shared.source[warp][base + lane] = total;
    }
    float sums[2] = {dot<L>(p, p), dot<L>(u, p)};
    const float total = warp_sums(sums);
    if (lane < 2) shared.partial[warp][lane] = total;
    __syncthreads();
    if (warp == 0) weigh(shared, a, sources, scale, t);
    __syncthreads();

    // h, and its norm.
    Columns<L> h{};
    add_scaled<L>(h, shared.partial_weight, p);
    for (int base = 0; base < count; base += kRows) {
      if (count > kRows) tile.load(sources, base, offset, d);
      tile.each(count - base, [&](int j, const Columns<L>& v) { add_scaled<L>(h, shared.weight[base + j], v); });
    }
    float squares[1] = {dot<L>(h, h)};
    const float s_h = rsqrtf(block_sums(squares, shared.h) * per_column + a.eps);
#pragma unroll
    for (int c = 0; c < L::kColumns; ++c) h.value[c] *= s_h * gain.value[c];
    store_columns<L>(a.x + offset, d, h);
    if (threadIdx.x == 0) a.h_inv_rms[t] = s_h;
    // A barrier follows the last use of each of the three parts of shared memory, before the part is written again.
  }
}

/// Blocks. Each takes several tokens, one after another, because it loads the parameters once. Twice five for each
/// multiprocessor of a card of 132, so that the last blocks end together.
constexpr std::int64_t kBlocks = 1320;

template <class T>
void forward(const ForwardArguments<T>& a, const AttnResSources& sources, const Tensor& partial, const Stream& stream) {
  const char* name = "attn_res_forward";
  const SourceRows<T> rows = source_rows<T>(name, sources, partial);
  const bool whole = a.aligned() && sources_aligned(rows, a.d);
  with_rows<T>(name, a.d, whole, [&]<class L>(L, int threads) {
    const auto blocks = static_cast<unsigned>(row_blocks(a.tokens, threads, kBlocks));
    launch(name, attn_res_forward_kernel<L>, {dim3(blocks), threads, sizeof(ForwardShared<L>)}, stream, a, rows);
  });
}

}  // namespace

void attn_res_forward(Tensor x, const AttnResState& state, Tensor p_in, Tensor y, const AttnResSources& sources,
                      const AttnResParams& params, Tensor alpha_override, const Stream& stream) {
  require_one_type("attn_res_forward", x, state.partial, p_in, y);
  with_type(x, [&]<class T>(T) {
    forward<T>({{x, p_in, y, state, params}, alpha_override.as<float>()}, sources, state.partial, stream);
  });
}

}  // namespace routescope::kernels::cuda
