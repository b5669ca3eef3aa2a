// The Attention Residuals read in two phases (MATH.md, "Cost"). Rows of d elements of b bytes.
// prepare, for R reads over the same n sources; n sources in, R outputs out, (n + R) d b bytes a token:
//   score_i = s_i <u_r, v_i>,  lse_r = ln sum_i exp(score_i + B_i),  output_r = sum_i exp(score_i + B_i - lse_r) v_i
// merge; p_in, y and output in, p and x out, 5 d b bytes a token:
//   alpha_n = sigmoid(score_n + B_n + bias - lse),  h = (1 - alpha_n) output + alpha_n p,  x = h gain / rms(h)
// Aim: 90 % of the copy bandwidth. prepare makes 2 n R multiplications a column: at n = R = 8 they alone fill about
// half of the issue slots in the time that its bytes take. A block takes a row (row_block.h). Up to 8 sources stay in
// registers between their two uses. Products are reduced up to 32 at a time. A thread keeps its columns of the R keys
// u_r in shared memory; no other thread reads them. Each warp turns the scores of some reads into weights.
#include "kernels/backends.h"
#include "kernels/cuda/parts/reduce.h"
#include "kernels/cuda/reads/read.h"

namespace routescope::kernels::cuda {

namespace {

/// The most reads of one launch, in the narrow layouts.
constexpr int kMostReads = 8;

/// One read of a launch.
template <class T>
struct PreparedRead {
  T* output;
  float* lse;
  float* score;
  const float* query;
  const float* key_gain;
  const float* logit_bias;
};
template <class T>
struct PrepareArguments {
  PreparedRead<T> read[kMostReads];
  int reads;
  std::int64_t tokens;
  int d;
};

/// Sources whose products are reduced together: 32 products where there are that many.
template <class L, int kReads>
inline constexpr int kGroup = kTile<L> < kWarp / kReads ? kTile<L> : kWarp / kReads;

template <class L, int kReads>
struct PrepareShared {
  SharedKeys<L, kReads> keys;
  float sums[2][L::kMaxWarps][kGroup<L, kReads> * kReads];
  float weight[kMaxSources][kReads];  // first the products, then the weights
};

/// One warp turns the products of a read's key with all sources into scores, lse and weights.
template <class T, int kReads>
__device__ void weigh(const PreparedRead<T>& read, const SourceRows<T>& sources, float (&weight)[kMaxSources][kReads],
                      int r, std::int64_t t) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float* score = read.score + t * sources.columns();
  float largest = -INFINITY;
#pragma unroll 1
  for (int i = lane; i < sources.count; i += kWarp) {
    score[i] = weight[i][r] * sources.inv_rms[i][t];
    const float logit = score[i] + (read.logit_bias ? read.logit_bias[i] : 0.0f);
    weight[i][r] = logit;
    largest = fmaxf(largest, logit);
  }
  largest = warp_max(largest);
  // All sources are masked: every weight is 0.
  const float shift = largest == -INFINITY ? 0.0f : largest;
  float sum = 0;
#pragma unroll 1
  for (int i = lane; i < sources.count; i += kWarp) sum += weight[i][r] = expf(weight[i][r] - shift);
  sum = warp_sum(sum);
  const float scale = sum > 0.0f ? 1.0f / sum : 0.0f;
#pragma unroll 1
  for (int i = lane; i < sources.count; i += kWarp) weight[i][r] *= scale;
  if (lane == 0) read.lse[t] = sum > 0.0f ? largest + logf(sum) : -INFINITY;
}

template <class L, int kReads>
__global__ void __launch_bounds__(L::kMaxThreads, L::kMinBlocks == 4 ? 3 : L::kMinBlocks)
    attn_res_prepare_kernel(const PrepareArguments<typename L::T> a, const SourceRows<typename L::T> sources) {
  using T = typename L::T;
  auto& shared = shared_memory<PrepareShared<L, kReads>>();
  constexpr int kRows = kTile<L>, kSources = kGroup<L, kReads>;
  const int d = a.d, count = sources.count;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  for (int r = 0; r < a.reads; ++r) shared.keys.put(r, load_key<L>(a.read[r].query, a.read[r].key_gain, d));
  int turn = 0;
  Tile<L> tile;

  for (std::int64_t t = blockIdx.x; t < a.tokens; t += gridDim.x) {
    const std::int64_t offset = t * d;
    for (int base = 0; base < count; base += kRows) {
      tile.load(sources, base, offset, d);
#pragma unroll
      for (int first = 0; first < kRows; first += kSources) {
        if (base + first >= count) continue;
        float sums[kSources * kReads] = {};
#pragma unroll
        for (int r = 0; r < kReads; ++r) {
          if (r >= a.reads) continue;
          const Columns<L> u = shared.keys.get(r);
#pragma unroll
          for (int j = 0; j < kSources; ++j)
            if (base + first + j < count) sums[j * kReads + r] = dot<L>(u, unpack<L>(tile.row[first + j]));
        }
        const float total = block_sums(sums, shared.sums[turn]);
        turn ^= 1;
        const int source = base + first + lane / kReads;
        if (warp == 0 && lane < kSources * kReads && source < count) shared.weight[source][lane % kReads] = total;
      }
    }
    __syncthreads();
    for (int r = warp; r < a.reads; r += warps) weigh<T, kReads>(a.read[r], sources, shared.weight, r, t);
    __syncthreads();

    Columns<L> output[kReads] = {};
    for (int base = 0; base < count; base += kRows) {
      if (count > kRows) tile.load(sources, base, offset, d);
      tile.each(count - base, [&](int j, const Columns<L>& v) {
#pragma unroll
        for (int r = 0; r < kReads; ++r) add_scaled<L>(output[r], shared.weight[base + j][r], v);
      });
    }
#pragma unroll
    for (int r = 0; r < kReads; ++r)
      if (r < a.reads) store_columns<L>(a.read[r].output + offset, d, output[r]);
    // The barrier of the next token's first reduction comes before its products are written.
  }
}

template <class T>
struct MergeArguments : ReadArguments<T> {
  const T* output;
  const float* lse;
  int n;
};

template <class L>
struct MergeShared {
  float first[L::kMaxWarps][2];
  float last[L::kMaxWarps][1];
};

template <class L>
__global__ void __launch_bounds__(L::kMaxThreads, 2 * L::kMinBlocks - 1)
    attn_res_merge_kernel(const MergeArguments<typename L::T> a) {
  auto& shared = shared_memory<MergeShared<L>>();
  const int d = a.d, n = a.n;
  const Columns<L> u = load_key<L>(a.query, a.key_gain, d), gain = load_parameter<L>(a.norm_gain, d);
  const float per_column = 1.0f / static_cast<float>(d);
  const float bias = (a.bias ? a.bias[0] : 0.0f) + (a.logit_bias ? a.logit_bias[n] : 0.0f);

  for (std::int64_t t = blockIdx.x; t < a.tokens; t += gridDim.x) {
    const std::int64_t offset = t * d, row = t * (n + 1);
    const float lse = a.lse[t], first_score = static_cast<int>(threadIdx.x) < n ? a.score[row + threadIdx.x] : 0.0f;
    const Packed<L> output = load_packed<L>(a.output + offset, d);
    const Columns<L> p = add_rows<L>(a.p_in, a.y, offset, d);
    store_columns<L>(a.partial + offset, d, p);
    float sums[2] = {dot<L>(p, p), dot<L>(u, p)};
    const float total = block_sums(sums, shared.first);
    const float s_p = rsqrtf(__shfl_sync(kFullMask, total, 0) * per_column + a.eps);
    const float score_p = s_p * __shfl_sync(kFullMask, total, 1);
    // Both from an exponential of their own, so that a mask makes one of them exactly 0 and the other exactly 1.
    const float above = score_p + bias - lse;
    const float current = 1.0f / (1.0f + expf(-above)), rest = 1.0f / (1.0f + expf(above));

    Columns<L> h = unpack<L>(output);
#pragma unroll
    for (int c = 0; c < L::kColumns; ++c) h.value[c] = rest * h.value[c] + current * p.value[c];
    float squares[1] = {dot<L>(h, h)};
    const float s_h = rsqrtf(block_sums(squares, shared.last) * per_column + a.eps);
#pragma unroll
    for (int c = 0; c < L::kColumns; ++c) h.value[c] *= s_h * gain.value[c];
    store_columns<L>(a.x + offset, d, h);

    if (threadIdx.x < kWarp) {
#pragma unroll 1
      for (int i = static_cast<int>(threadIdx.x); i < n; i += kWarp) {
        const float logit = (i < kWarp ? first_score : a.score[row + i]) + (a.logit_bias ? a.logit_bias[i] : 0.0f);
        a.alpha[row + i] = lse == -INFINITY ? 0.0f : rest * expf(logit - lse);
      }
    }
    if (threadIdx.x == 0) {
      a.score[row + n] = score_p;
      a.alpha[row + n] = current;
      a.inv_rms[t] = s_p;
      a.h_inv_rms[t] = s_h;
    }
  }
}

/// Blocks. Each takes several tokens, one after another, because it loads the parameters once. For each multiprocessor
/// of a card of 132: five of prepare (three where the registers of eight reads allow no more), and twice eight of
/// merge.
template <int kReads>
inline constexpr std::int64_t kPrepareBlocks = kReads == kMostReads ? 396 : 660;
constexpr std::int64_t kMergeBlocks = 2112;

template <class T>
void prepare(std::span<const AttnResPrepared> reads, std::span<const AttnResParams> params,
             const AttnResSources& sources, const Stream& stream) {
  const char* name = "attn_res_prepare";
  const std::int64_t tokens = sources.values[0].shape[0], d = sources.values[0].shape[1];
  const SourceRows<T> rows = source_rows<T>(name, sources, Tensor());
  bool whole = sources_aligned(rows, d);
  for (const AttnResPrepared& read : reads) {
    require_one_type(name, sources.values[0], read.output);
    whole = whole && rows_aligned(read.output.as<T>(), d);
  }
  std::size_t first = 0;
  const auto serve = [&]<class L, int kReads>(L, std::integral_constant<int, kReads>, int threads) {
    PrepareArguments<T> a{};
    a.tokens = tokens;
    a.d = static_cast<int>(d);
    for (; a.reads < kReads && first < reads.size(); ++first)
      a.read[a.reads++] = {reads[first].output.as<T>(),        reads[first].lse.as<float>(),
                           reads[first].score.as<float>(),     params[first].query.as<float>(),
                           params[first].key_gain.as<float>(), params[first].logit_bias.as<float>()};
    const auto blocks = static_cast<unsigned>(row_blocks(tokens, threads, kPrepareBlocks<kReads>));
    launch(name, attn_res_prepare_kernel<L, kReads>, {dim3(blocks), threads, sizeof(PrepareShared<L, kReads>)}, stream,
           a, rows);
  };
  with_rows<T>(name, d, whole, [&]<class L>(L layout, int threads) {
    while (first < reads.size()) {
      if constexpr (L::kMaxThreads <= 256) {
        if (reads.size() - first > 4)
          serve(layout, std::integral_constant<int, kMostReads>{}, threads);
        else
          serve(layout, std::integral_constant<int, 4>{}, threads);
      } else {
        serve(layout, std::integral_constant<int, 2>{}, threads);
      }
    }
  });
}

template <class T>
void merge(const MergeArguments<T>& a, const Stream& stream) {
  const bool whole = a.aligned() && rows_aligned(a.output, a.d);
  with_rows<T>("attn_res_merge", a.d, whole, [&]<class L>(L, int threads) {
    const auto blocks = static_cast<unsigned>(row_blocks(a.tokens, threads, kMergeBlocks));
    launch("attn_res_merge", attn_res_merge_kernel<L>, {dim3(blocks), threads, sizeof(MergeShared<L>)}, stream, a);
  });
}

}  // namespace

void attn_res_prepare(std::span<const AttnResPrepared> reads, std::span<const AttnResParams> params,
                      const AttnResSources& sources, const Stream& stream) {
  with_type(sources.values[0], [&]<class T>(T) { prepare<T>(reads, params, sources, stream); });
}

void attn_res_merge(Tensor x, const AttnResState& state, Tensor p_in, Tensor y, const AttnResPrepared& prepared,
                    const AttnResParams& params, const Stream& stream) {
  require_one_type("attn_res_merge", x, state.partial, p_in, y, prepared.output);
  const int n = static_cast<int>(state.alpha.shape[1]) - 1;
  with_type(x, [&]<class T>(T) {
    merge<T>({{x, p_in, y, state, params}, prepared.output.as<T>(), prepared.lse.as<float>(), n}, stream);
  });
}

}  // namespace routescope::kernels::cuda
