// Shared by the kernels of an Attention Residuals read (MATH.md, "Residual stream and reads"): the completed sources
// as a kernel's argument, and a few of them in registers at a time.
#pragma once

#include "kernels/cuda/parts/row_block.h"
#include "kernels/op_types.h"

namespace routescope::kernels::cuda {

/// The arguments of every kernel of a read: AttnResState and AttnResParams (op_types.h) as addresses, with the tensors
/// that go in and out. Absent ones are null.
template <class T>
struct ReadArguments {
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
  std::int64_t tokens;
  int d;
  float eps;

  ReadArguments(const Tensor& x_, const Tensor& p_in_, const Tensor& y_, const AttnResState& state,
                const AttnResParams& params)
      : x(x_.as<T>()),
        partial(state.partial.as<T>()),
        p_in(p_in_.as<T>()),
        y(y_.as<T>()),
        inv_rms(state.inv_rms.as<float>()),
        score(state.score.as<float>()),
        alpha(state.alpha.as<float>()),
        h_inv_rms(state.h_inv_rms.as<float>()),
        query(params.query.as<float>()),
        key_gain(params.key_gain.as<float>()),
        bias(params.bias.as<float>()),
        logit_bias(params.logit_bias.as<float>()),
        norm_gain(params.norm_gain.as<float>()),
        tokens(state.partial.shape[0]),
        d(static_cast<int>(state.partial.shape[1])),
        eps(static_cast<float>(params.eps)) {}

  /// Whether its rows can move in whole vectors; absent ones can.
  bool aligned() const {
    return rows_aligned(x, d) && rows_aligned(partial, d) && rows_aligned(p_in, d) && rows_aligned(y, d);
  }
};

/// The most completed sources of a read. Their addresses travel as the kernel's argument, 4 KiB at most.
inline constexpr int kMaxSources = 128;

/// A read's completed sources. A source that is the partial itself is left out and noted as `alias`: its values are
/// already loaded, and it only changes the partial's factor.
template <class T>
struct SourceRows {
  const T* value[kMaxSources];
  const float* inv_rms[kMaxSources];
  int count;  // without the alias
  int alias;  // the column of the source that is the partial, or -1

  /// The column, in score and alpha, of source i < count.
  __host__ __device__ int column(int i) const { return alias >= 0 && i >= alias ? i + 1 : i; }
  /// n + 1, all completed sources and the partial.
  __host__ __device__ int columns() const { return count + (alias >= 0 ? 2 : 1); }
};

/// Throws std::invalid_argument for more than kMaxSources sources, or more than one that is `partial` (which may be
/// undefined).
template <class T>
SourceRows<T> source_rows(const char* operation, const AttnResSources& sources, const Tensor& partial) {
  const std::string prefix = std::string(operation) + ": ";
  if (sources.values.size() > static_cast<std::size_t>(kMaxSources))
    throw std::invalid_argument(prefix + std::to_string(sources.values.size()) + " sources, expected at most " +
                                std::to_string(kMaxSources) + " on CUDA");
  SourceRows<T> out{};
  out.alias = -1;
  for (std::size_t i = 0; i < sources.values.size(); ++i) {
    const Tensor& value = sources.values[i];
    if (value.dtype != dtype_of<T>())
      throw std::invalid_argument(prefix + "expected activations and operands of one type on CUDA");
    if (partial && value.data == partial.data) {
      if (out.alias >= 0) throw std::invalid_argument(prefix + "expected at most one source that is the partial");
      out.alias = static_cast<int>(i);
    } else {
      out.value[out.count] = value.as<T>();
      out.inv_rms[out.count++] = sources.inv_rms[i].as<float>();
    }
  }
  return out;
}

/// Whether the sources' rows can move in whole vectors.
template <class T>
bool sources_aligned(const SourceRows<T>& sources, std::int64_t d) {
  bool aligned = true;
  for (int i = 0; i < sources.count; ++i) aligned = aligned && rows_aligned(sources.value[i], d);
  return aligned;
}

/// How many sources a thread holds at a time.
template <class L>
inline constexpr int kTile = L::kVecs == 1 ? 8 : 1;

/// A thread's columns of sources base .. base + kCount - 1, as they are stored. A read of up to kCount sources keeps
/// them in registers from the first use to the last. A thread without columns loads nothing and holds zeros. So each
/// load depends on one condition only, and no load waits for a branch.
template <class L, int kCount = kTile<L>>
struct Tile {
  Packed<L> row[kCount] = {};

  __device__ void load(const SourceRows<typename L::T>& sources, int base, std::int64_t offset, int d) {
    load(sources.value + base, sources.count - base, offset, d);
  }
  /// The first `left` of some rows.
  template <class Pointer>
  __device__ void load(const Pointer* rows, int left, std::int64_t offset, int d) {
#pragma unroll
    for (int j = 0; j < kCount; ++j)
      if (j < left && first_column<L>(0) < d) row[j] = load_packed<L>(rows[j] + offset, d);
  }
  /// body(j, columns) for each of the first `left` sources.
  template <class Body>
  __device__ void each(int left, Body&& body) const {
#pragma unroll
    for (int j = 0; j < kCount; ++j)
      if (j < left) body(j, unpack<L>(row[j]));
  }
};

/// One number for each source of a token; each lane of a warp keeps one at a time. `number(i)` loads the number of
/// source i. The constructor loads that of the lane's first source, long before it is needed.
template <class Number>
class PerSource {
 public:
  __device__ PerSource(int count, Number number) : count_(count), number_(number) { load(0); }

  /// To all lanes of the warp: the number of source i, where i goes up from 0 by one or in tiles.
  __device__ float of(int i) {
    if (i >= first_ + kWarp) load(i / kWarp * kWarp);
    return __shfl_sync(kFullMask, mine_, i % kWarp);
  }

 private:
  __device__ void load(int first) {
    first_ = first;
    const int i = first + static_cast<int>(threadIdx.x) % kWarp;
    mine_ = i < count_ ? number_(i) : 0.0f;
  }

  int count_;
  Number number_;
  int first_;
  float mine_;
};

/// u = query * key_gain
template <class L>
__device__ Columns<L> load_key(const float* query, const float* key_gain, int d) {
  Columns<L> u = load_parameter<L>(query, d);
  const Columns<L> gain = load_parameter<L>(key_gain, d);
#pragma unroll
  for (int c = 0; c < L::kColumns; ++c) u.value[c] *= gain.value[c];
  return u;
}

/// Keys u of some reads. Each thread keeps its own columns; no other thread reads them.
template <class L, int kReads>
struct SharedKeys {
  static constexpr int kPieces = L::kColumns / 4;
  float4 piece[kReads][kPieces][L::kMaxThreads];

  __device__ void put(int read, const Columns<L>& u) {
#pragma unroll
    for (int k = 0; k < kPieces; ++k)
      piece[read][k][threadIdx.x] =
          make_float4(u.value[4 * k], u.value[4 * k + 1], u.value[4 * k + 2], u.value[4 * k + 3]);
  }
  __device__ Columns<L> get(int read) const {
    Columns<L> u;
#pragma unroll
    for (int k = 0; k < kPieces; ++k) {
      const float4 four = piece[read][k][threadIdx.x];
      u.value[4 * k] = four.x;
      u.value[4 * k + 1] = four.y;
      u.value[4 * k + 2] = four.z;
      u.value[4 * k + 3] = four.w;
    }
    return u;
  }
};

/// p = p_in + y, null counting as zero. The caller uses it unrounded; only the store rounds it.
template <class L>
__device__ Columns<L> add_rows(const typename L::T* p_in, const typename L::T* y, std::int64_t offset, int d) {
  Packed<L> a{}, b{};
  if (p_in) a = load_packed<L>(p_in + offset, d);
  if (y) b = load_packed<L>(y + offset, d);
  Columns<L> sum = unpack<L>(a);
  add_scaled<L>(sum, 1.0f, unpack<L>(b));
  return sum;
}

}  // namespace routescope::kernels::cuda
