// The part of the Attention Residuals gradient that waits (MATH.md, "Gradients"). For each token and source i, over the
// R reads that share the n sources:
//   dsource_i += sum_r alpha_ri dh_r + sum_r (dlogit_ri s_i) u_r - v_i sum_r dlogit_ri s_i^2 score_ri / d
// Rows of d elements of b bytes: R of dh, and for each source v_i and dsource_i in and dsource_i out, (R + 3 n) d b
// bytes a token; aim: 85 % of the copy bandwidth. Nothing is summed over columns: a thread takes its columns of all
// rows of a token (row_block.h). Their loads are in flight while the block makes the 3 n R factors of the token. A
// thread keeps the sums of 8 sources in registers and adds the reads one after another. The keys u_r of 8 reads stay in
// shared memory; further reads take theirs from the caches.
#include "kernels/backends.h"
#include "kernels/cuda/reads/read.h"

namespace routescope::kernels::cuda {

namespace {

/// Reads of a launch.
constexpr int kMostReads = 8;
/// Blocks: two to a multiprocessor on a card of 132.
constexpr std::int64_t kBlocks = 264;

/// Sources whose sums a thread holds, and keys that its block has room for.
template <class L>
inline constexpr int kHeld = L::kMaxThreads <= 256 ? 8 : (L::kWhole ? 2 : 1);
template <class L>
inline constexpr int kKeys = L::kWhole ? kMostReads : 1;

template <class T>
struct DeferredRead {
  const T* dh;
  const float* dlogit;
  const float* alpha;
  const float* score;
  const float* query;
  const float* key_gain;
};
template <class T>
struct SourcesArguments {
  DeferredRead<T> read[kMostReads];
  T* dsource[kMaxSources];
  int reads;
  int d;
  std::int64_t tokens;
};

/// The factors of one token's rows.
template <int kSources>
struct Factors {
  float2 of_read[kMostReads][kSources];  // alpha, of dh; dlogit s, of u
  float own[kSources];                   // of -v
};

template <class L>
struct SourcesShared {
  SharedKeys<L, kKeys<L>> keys;
  Factors<kHeld<L>> factors[2];
};

/// The factors of sources base .. base + kSources - 1 for one token: a thread takes a source and a read, 8 neighbours
/// the reads of one source.
template <class T, int kSources>
__device__ void make_factors(Factors<kSources>& factors, const SourcesArguments<T>& a, const SourceRows<T>& sources,
                             int base, std::int64_t t) {
  constexpr int kPairs = kSources < kWarp / kMostReads ? kWarp : kSources * kMostReads;  // whole warps
  for (int pair = static_cast<int>(threadIdx.x); pair < kPairs; pair += static_cast<int>(blockDim.x)) {
    const int i = pair / kMostReads, r = pair % kMostReads;
    float alpha = 0, along_u = 0, own = 0;
    if (i < kSources && base + i < sources.count && r < a.reads) {
      const DeferredRead<T>& read = a.read[r];
      const std::int64_t at = t * sources.columns() + base + i;
      const float s = sources.inv_rms[base + i][t];
      alpha = read.alpha[at];
      along_u = read.dlogit[at] * s;
      own = along_u * s * read.score[at];
    }
#pragma unroll
    for (int offset = 1; offset < kMostReads; offset *= 2) own += __shfl_xor_sync(kFullMask, own, offset);
    if (i < kSources) {
      factors.of_read[r][i] = make_float2(alpha, along_u);
      if (r == 0) factors.own[i] = own / static_cast<float>(a.d);
    }
  }
}

template <class L>
__global__ void __launch_bounds__(L::kMaxThreads, L::kMaxThreads == 128 ? 2 : 1)
    attn_res_sources_kernel(const SourcesArguments<typename L::T> a, const SourceRows<typename L::T> sources) {
  using T = typename L::T;
  auto& shared = shared_memory<SourcesShared<L>>();
  constexpr int kSources = kHeld<L>;
  const int d = a.d;
  const bool kept = a.reads <= kKeys<L>;
  if (kept)
    for (int r = 0; r < a.reads; ++r) shared.keys.put(r, load_key<L>(a.read[r].query, a.read[r].key_gain, d));
  int turn = 0;
  Tile<L, kSources> value, before;

  for (std::int64_t t = blockIdx.x; t < a.tokens; t += gridDim.x) {
    const std::int64_t offset = t * d;
    for (int base = 0; base < sources.count; base += kSources) {
      const int left = sources.count - base;
      value.load(sources, base, offset, d);
      before.load(a.dsource + base, left, offset, d);
      Packed<L> dh[kMostReads];
#pragma unroll
      for (int r = 0; r < kMostReads; ++r)
        if (r < a.reads) dh[r] = load_packed<L>(a.read[r].dh + offset, d);
      Factors<kSources>& factors = shared.factors[turn];
      turn ^= 1;
      make_factors<T>(factors, a, sources, base, t);
      __syncthreads();
      Columns<L> sum[kSources];
#pragma unroll
      for (int i = 0; i < kSources; ++i) {
        if (i >= left) continue;
        sum[i] = unpack<L>(before.row[i]);
        add_scaled<L>(sum[i], -factors.own[i], unpack<L>(value.row[i]));
      }
#pragma unroll
      for (int r = 0; r < kMostReads; ++r) {
        if (r >= a.reads) continue;
        const Columns<L> u = kept ? shared.keys.get(r) : load_key<L>(a.read[r].query, a.read[r].key_gain, d);
        const Columns<L> grad = unpack<L>(dh[r]);
#pragma unroll
        for (int i = 0; i < kSources; ++i) {
          if (i >= left) continue;
          const float2 factor = factors.of_read[r][i];
          add_scaled<L>(sum[i], factor.x, grad);
          add_scaled<L>(sum[i], factor.y, u);
        }
      }
#pragma unroll
      for (int i = 0; i < kSources; ++i)
        if (i < left) store_columns<L>(a.dsource[base + i] + offset, d, sum[i]);
    }
  }
}

template <class T>
void backward_sources(std::span<const Tensor> dsources, std::span<const AttnResDeferred> reads,
                      const AttnResSources& sources, const Stream& stream) {
  const char* name = "attn_res_backward_sources";
  const std::int64_t d = dsources[0].shape[1];
  const SourceRows<T> rows = source_rows<T>(name, sources, Tensor());
  bool whole = sources_aligned(rows, d);
  SourcesArguments<T> a{};
  a.d = static_cast<int>(d);
  a.tokens = dsources[0].shape[0];
  for (std::size_t i = 0; i < dsources.size(); ++i) {
    require_one_type(name, sources.values[i], dsources[i]);
    a.dsource[i] = dsources[i].as<T>();
    whole = whole && rows_aligned(a.dsource[i], d);
  }
  for (const AttnResDeferred& read : reads) {
    require_one_type(name, sources.values[0], read.dh);
    whole = whole && rows_aligned(read.dh.as<T>(), d);
  }
  // Where shared memory is too small for the keys of wide rows, the general layout serves: it keeps none and is slower.
  if (static_cast<std::size_t>(d) > MiddleRows<T>::kMaxThreads * MiddleRows<T>::kColumns)
    whole = whole && sizeof(SourcesShared<WideRows<T>>) <= shared_memory_limit();
  with_rows<T>(name, d, whole, [&]<class L>(L, int threads) {
    const auto blocks = static_cast<unsigned>(row_blocks(a.tokens, threads, kBlocks));
    for (std::size_t first = 0; first < reads.size(); first += kMostReads) {
      const auto some = reads.subspan(first, std::min<std::size_t>(kMostReads, reads.size() - first));
      a.reads = 0;
      for (const AttnResDeferred& read : some)
        a.read[a.reads++] = {read.dh.as<T>(),        read.dlogit.as<float>(), read.alpha.as<float>(),
                             read.score.as<float>(), read.query.as<float>(),  read.key_gain.as<float>()};
      launch(name, attn_res_sources_kernel<L>, {dim3(blocks), threads, sizeof(SourcesShared<L>)}, stream, a, rows);
    }
  });
}

}  // namespace

void attn_res_backward_sources(std::span<const Tensor> dsources, std::span<const AttnResDeferred> reads,
                               const AttnResSources& sources, const Stream& stream) {
  if (dsources.empty()) return;
  with_type(dsources[0], [&]<class T>(T) { backward_sources<T>(dsources, reads, sources, stream); });
}

}  // namespace routescope::kernels::cuda
