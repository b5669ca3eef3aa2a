// The fused Attention Residuals read (MATH.md, "State and reads"):
//   p = p_in + y,  s_i = 1 / rms(v_i),  alpha = softmax_i(s_i <u, v_i> + B_i),  h = sum_i alpha_i v_i,
//   x = h gain / rms(h);   u = query * key_gain,  v = n completed sources and p.
// Rows of d elements of b bytes: p_in, y and n sources in, p and x out, (n + 4) d b bytes a token; aim: 90 % of the
// copy bandwidth. A block takes a row (row_block.h). All loads of a token are in flight together, n up to 8 sources
// wait in registers between their two uses, and all n + 2 sums over d are made at once, so that a token costs two
// meetings of the block: one for the scores, one for rms(h). More than 8 sources are read twice, the second time from
// the caches.
#include "kernels/backends.h"
#include "kernels/cuda/read.h"
#include "kernels/cuda/reduce.h"

namespace routescope::cuda {

namespace {

template <class T>
struct ForwardArguments {
  T* x;
  T* partial;
  const T* p_in;
  const T* y;
  float* inv_rms;
  float* score;
  float* alpha;
  float* h_inv_rms;
  const float* query;
  const float* key_gain;
  const float* bias;
  const float* logit_bias;
  const float* norm_gain;
  const float* alpha_override;
  std::int64_t tokens;
  int d;
  float eps;
};

/// The first reduction has the sums of a tile of sources and two of the partial.
template <class L>
inline constexpr int kSums = kTile<L> == 8 ? 16 : 4;

template <class L>
struct ForwardShared {
  float first[L::kMaxWarps][kSums<L>];
  float more[2][L::kMaxWarps][kTile<L>];
  float last[L::kMaxWarps][1];
};

/// The weights of one token: of the completed sources, of the one that is the partial, and of the partial.
template <int kSlots>
struct Weights {
  PerSource<kSlots> source;
  float alias;
  float current;
};

/// Logits become their softmax. At least one is finite; -inf gets weight 0.
template <int kSlots>
__device__ void softmax(Weights<kSlots>& w) {
  float largest = fmaxf(w.current, w.alias);
#pragma unroll
  for (int q = 0; q < kSlots; ++q) largest = fmaxf(largest, w.source.slot[q]);
  largest = warp_max(largest);
  float sum = 0;
#pragma unroll
  for (int q = 0; q < kSlots; ++q) sum += w.source.slot[q] = expf(w.source.slot[q] - largest);
  w.alias = expf(w.alias - largest);
  w.current = expf(w.current - largest);
  sum = warp_sum(sum) + w.alias + w.current;
#pragma unroll
  for (int q = 0; q < kSlots; ++q) w.source.slot[q] /= sum;
  w.alias /= sum;
  w.current /= sum;
}

template <class L, int kSlots>
__global__ void __launch_bounds__(L::kMaxThreads, L::kMinBlocks)
    attn_res_forward_kernel(const ForwardArguments<typename L::T> a, const SourceRows<typename L::T> sources) {
  auto& shared = shared_memory<ForwardShared<L>>();
  constexpr int kRows = kTile<L>;
  const int d = a.d, count = sources.count, columns = sources.columns();
  const Columns<L> u = load_key<L>(a.query, a.key_gain, d), gain = load_parameter<L>(a.norm_gain, d);
  const SourceScales<kSlots> scales(sources);
  PerSource<kSlots> bias{};
  float alias_bias = 0, current_bias = a.bias ? a.bias[0] : 0.0f;
  if (a.logit_bias) {
    bias = load_per_source<kSlots>(a.logit_bias, sources);
    if (sources.alias >= 0) alias_bias = a.logit_bias[sources.alias];
    current_bias += a.logit_bias[columns - 1];
  }

  for (std::int64_t t = blockIdx.x; t < a.tokens; t += gridDim.x) {
    const std::int64_t offset = t * d;
    Tile<L> tile;
    tile.load(sources, 0, offset, d);
    const Columns<L> p = add_rows<L>(a.p_in, a.y, offset, d);
    const PerSource<kSlots> s = scales.of_row(t, sources);
    store_columns<L>(a.partial + offset, d, p);

    // The inner products with u, and the partial's norm.
    float sums[kSums<L>] = {};
    sums[kRows] = dot<L>(p, p);
    sums[kRows + 1] = dot<L>(u, p);
    tile.each(count, [&](int j, const Columns<L>& v) { sums[j] = dot<L>(u, v); });
    const float total = block_sums(sums, shared.first);
    const float s_p = rsqrtf(__shfl_sync(kFullMask, total, kRows) / static_cast<float>(d) + a.eps);
    const float score_p = s_p * __shfl_sync(kFullMask, total, kRows + 1);
    PerSource<kSlots> score{};
    score.take(0, kRows, total);
    for (int base = kRows; base < count; base += kRows) {
      float more[kRows] = {};
      tile.load(sources, base, offset, d);
      tile.each(count - base, [&](int j, const Columns<L>& v) { more[j] = dot<L>(u, v); });
      score.take(base, kRows, block_sums(more, shared.more[base / kRows % 2]));
    }

    Weights<kSlots> w;
#pragma unroll
    for (int q = 0; q < kSlots; ++q) w.source.slot[q] = -INFINITY;
    PerSource<kSlots>::each(count, [&](int q, int) {
      score.slot[q] *= s.slot[q];
      w.source.slot[q] = score.slot[q] + bias.slot[q];
    });
    w.alias = sources.alias >= 0 ? score_p + alias_bias : -INFINITY;
    w.current = score_p + current_bias;
    softmax(w);
    const std::int64_t row = t * columns;
    if (a.alpha_override) {
      w.source = load_per_source<kSlots>(a.alpha_override + row, sources);
      if (sources.alias >= 0) w.alias = a.alpha_override[row + sources.alias];
      w.current = a.alpha_override[row + columns - 1];
    }

    // h, and its norm.
    Columns<L> h{};
    add_scaled<L>(h, w.alias + w.current, p);
    for (int base = 0; base < count; base += kRows) {
      if (count > kRows) tile.load(sources, base, offset, d);
      tile.each(count - base, [&](int j, const Columns<L>& v) { add_scaled<L>(h, w.source.of(base + j), v); });
    }
    float squares[1] = {dot<L>(h, h)};
    const float s_h = rsqrtf(block_sums(squares, shared.last) / static_cast<float>(d) + a.eps);
#pragma unroll
    for (int c = 0; c < L::kColumns; ++c) h.value[c] *= s_h * gain.value[c];
    store_columns<L>(a.x + offset, d, h);

    if (threadIdx.x < kWarp) {
      PerSource<kSlots>::each(count, [&](int q, int i) {
        a.score[row + sources.column(i)] = score.slot[q];
        a.alpha[row + sources.column(i)] = w.source.slot[q];
      });
    }
    if (threadIdx.x == 0) {
      if (sources.alias >= 0) {
        a.score[row + sources.alias] = score_p;
        a.alpha[row + sources.alias] = w.alias;
      }
      a.score[row + columns - 1] = score_p;
      a.alpha[row + columns - 1] = w.current;
      a.inv_rms[t] = s_p;
      a.h_inv_rms[t] = s_h;
    }
  }
}

/// Blocks of a forward read: a block takes some tokens one after another, for its parameters' sake.
constexpr std::int64_t kBlocks = 2112;

template <class T>
void forward(T* x, const AttnResState& state, const Tensor& p_in, const Tensor& y, const AttnResSources& sources,
             const AttnResParams& params, const Tensor& alpha_override, const Stream& stream) {
  const char* name = "attn_res_forward";
  const std::int64_t d = state.partial.shape[1];
  const ForwardArguments<T> a{.x = x,
                              .partial = state.partial.as<T>(),
                              .p_in = p_in.as<T>(),
                              .y = y.as<T>(),
                              .inv_rms = state.inv_rms.as<float>(),
                              .score = state.score.as<float>(),
                              .alpha = state.alpha.as<float>(),
                              .h_inv_rms = state.h_inv_rms.as<float>(),
                              .query = params.query.as<float>(),
                              .key_gain = params.key_gain.as<float>(),
                              .bias = params.bias.as<float>(),
                              .logit_bias = params.logit_bias.as<float>(),
                              .norm_gain = params.norm_gain.as<float>(),
                              .alpha_override = alpha_override.as<float>(),
                              .tokens = state.partial.shape[0],
                              .d = static_cast<int>(d),
                              .eps = static_cast<float>(params.eps)};
  const SourceRows<T> rows = source_rows<T>(name, sources, state.partial);
  const bool whole = rows_aligned(a.x, d) && rows_aligned(a.partial, d) && rows_aligned(a.p_in, d) &&
                     rows_aligned(a.y, d) && sources_aligned(rows, d);
  with_read<T>(name, d, whole, rows.count, [&]<class L, class Slots>(L, Slots, int threads) {
    const auto blocks = static_cast<unsigned>(row_blocks(a.tokens, threads, kBlocks));
    launch(name, attn_res_forward_kernel<L, Slots::value>, {dim3(blocks), threads, sizeof(ForwardShared<L>)}, stream, a,
           rows);
  });
}

}  // namespace

void attn_res_forward(Tensor x, const AttnResState& state, Tensor p_in, Tensor y, const AttnResSources& sources,
                      const AttnResParams& params, Tensor alpha_override, const Stream& stream) {
  require_one_type("attn_res_forward", x, state.partial, p_in, y);
  with_type(x, [&]<class T>(T) { forward(x.as<T>(), state, p_in, y, sources, params, alpha_override, stream); });
}

}  // namespace routescope::cuda
