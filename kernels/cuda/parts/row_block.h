// A block for each row: the layout of kernels that reduce over the hidden size of an activation [tokens, d]. Thread i
// of a block holds the row's vectors i, i + threads, ... The block goes through rows block, block + blocks, ... A
// thread keeps the same columns for all rows, so parameters, and gradients of parameters, stay in registers.
//
// For d = 1024 in bf16 a row is one vector for each of 128 threads: a thread has room for the vectors of many rows (the
// sources of a read), all of whose loads are in flight before the first is used, and each is loaded once.
#pragma once

#include <algorithm>

#include "kernels/cuda/parts/vec.h"

namespace routescope::kernels::cuda {

/// A layout: vectors of a thread, the most threads of a block, the blocks that a multiprocessor has registers for, and
/// whether every row is known to start on 16 bytes and to end with a whole vector.
template <class T_, int kVecs_, int kMaxThreads_, int kMinBlocks_, bool kWhole_>
struct RowLayout {
  using T = T_;
  static constexpr int kVecs = kVecs_;
  static constexpr int kMaxThreads = kMaxThreads_;
  static constexpr int kMinBlocks = kMinBlocks_;
  static constexpr int kMaxWarps = kMaxThreads / kWarp;
  static constexpr bool kWhole = kWhole_;
  static constexpr int kColumns = kVecs * kVec<T>;  // a thread's
};
template <class T>
using NarrowRows = RowLayout<T, 1, 128, 4, true>;
template <class T>
using MiddleRows = RowLayout<T, 1, 256, 2, true>;
template <class T>
using WideRows = RowLayout<T, 1, 512, 1, true>;
template <class T>
using AnyRows = RowLayout<T, 2, kVec<T> == 8 ? 320 : 512, 1, false>;  // up to 5120 columns of bf16, 4096 of f32

/// Calls body(layout, threads) with the fastest layout for rows of d elements. `whole`: every tensor's rows can move in
/// whole vectors. Throws std::invalid_argument where d is too large for a block.
template <class T, class Body>
void with_rows(const char* operation, std::int64_t d, bool whole, Body&& body) {
  const auto threads = [d](int vecs) {
    return static_cast<int>(std::max<std::int64_t>(1, ceil_div<std::int64_t>(d, vecs * kWarp * kVec<T>))) * kWarp;
  };
  if (whole && threads(NarrowRows<T>::kVecs) <= NarrowRows<T>::kMaxThreads)
    return body(NarrowRows<T>{}, threads(NarrowRows<T>::kVecs));
  if (whole && threads(MiddleRows<T>::kVecs) <= MiddleRows<T>::kMaxThreads)
    return body(MiddleRows<T>{}, threads(MiddleRows<T>::kVecs));
  if (whole && threads(WideRows<T>::kVecs) <= WideRows<T>::kMaxThreads)
    return body(WideRows<T>{}, threads(WideRows<T>::kVecs));
  constexpr int kWidest = AnyRows<T>::kMaxThreads * AnyRows<T>::kColumns;
  if (d > kWidest)
    throw std::invalid_argument(std::string(operation) + ": a hidden size of " + std::to_string(d) +
                                ", expected at most " + std::to_string(kWidest));
  body(AnyRows<T>{}, threads(AnyRows<T>::kVecs));
}

/// Blocks for `tokens` rows: as many as do about the same work in narrow and in wide rows. The device must not change
/// this number, because sums over tokens are made block by block.
inline std::int64_t row_blocks(std::int64_t tokens, int threads, std::int64_t of_128_threads) {
#ifdef ROUTESCOPE_SIMT
  of_128_threads = 2;  // few in emulation, so that a block has several rows of small inputs
#endif
  return std::min(tokens, of_128_threads * std::max(1, 128 / threads));
}
/// Of kernels whose blocks each leave a row of sums over their tokens: four to a multiprocessor on a card of 132.
inline constexpr std::int64_t kGradientBlocks = 528;
/// The most such blocks for rows of d elements, whatever their layout.
inline std::int64_t most_gradient_blocks(std::int64_t tokens, std::int64_t d) {
  constexpr std::int64_t kWidest = kWarp * AnyRows<bf16>::kColumns;
  return row_blocks(tokens, static_cast<int>(std::max<std::int64_t>(1, ceil_div(d, kWidest))) * kWarp, kGradientBlocks);
}

/// A thread's vectors of a row, as they are stored.
template <class L>
struct Packed {
  uint4 vec[L::kVecs];
};
/// A thread's columns of a row.
template <class L>
struct Columns {
  float value[L::kColumns];
};

/// The first column of a thread's vector k.
template <class L>
__device__ int first_column(int k) {
  return (k * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * kVec<typename L::T>;
}

/// Whether a vector that is not known to be whole is.
template <class T>
__device__ bool is_whole(const T* row, int begin, int d) {
  return begin + kVec<T> <= d && reinterpret_cast<std::uintptr_t>(row + begin) % 16 == 0;
}

/// What lies beyond column d is 0.
template <class L>
__device__ Packed<L> load_packed(const typename L::T* row, int d) {
  Packed<L> out;
#pragma unroll
  for (int k = 0; k < L::kVecs; ++k) {
    const int begin = first_column<L>(k);
    if constexpr (L::kWhole)
      out.vec[k] = begin < d ? *reinterpret_cast<const uint4*>(row + begin) : make_uint4(0, 0, 0, 0);
    else
      out.vec[k] = pack(load_row(row, begin, d, is_whole(row, begin, d)));
  }
  return out;
}

template <class L>
__device__ Columns<L> unpack(const Packed<L>& packed) {
  Columns<L> out;
#pragma unroll
  for (int k = 0; k < L::kVecs; ++k) {
    const Vec<typename L::T> v = unpack(packed.vec[k], typename L::T{});
#pragma unroll
    for (int i = 0; i < kVec<typename L::T>; ++i) out.value[k * kVec<typename L::T> + i] = v.value[i];
  }
  return out;
}

template <class L>
__device__ Packed<L> pack(const Columns<L>& columns) {
  Packed<L> out;
#pragma unroll
  for (int k = 0; k < L::kVecs; ++k) {
    Vec<typename L::T> v;
#pragma unroll
    for (int i = 0; i < kVec<typename L::T>; ++i) v.value[i] = columns.value[k * kVec<typename L::T> + i];
    out.vec[k] = pack(v);
  }
  return out;
}

template <class L>
__device__ void store_packed(typename L::T* row, int d, const Packed<L>& packed) {
#pragma unroll
  for (int k = 0; k < L::kVecs; ++k) {
    const int begin = first_column<L>(k);
    if constexpr (L::kWhole) {
      if (begin < d) *reinterpret_cast<uint4*>(row + begin) = packed.vec[k];
    } else {
      store_row(row, begin, d, is_whole(row, begin, d), unpack(packed.vec[k], typename L::T{}));
    }
  }
}

template <class L>
__device__ void store_columns(typename L::T* row, int d, const Columns<L>& columns) {
  store_packed<L>(row, d, pack<L>(columns));
}

/// A thread's columns of a parameter [d], which may start anywhere.
template <class L>
__device__ Columns<L> load_parameter(const float* parameter, int d) {
  constexpr int kWidth = kVec<typename L::T>;
  Columns<L> out;
#pragma unroll
  for (int c = 0; c < L::kColumns; ++c) {
    const int at = first_column<L>(c / kWidth) + c % kWidth;
    out.value[c] = at < d ? parameter[at] : 0.0f;
  }
  return out;
}

/// The same columns of a row of floats that may start anywhere.
template <class L>
__device__ void store_floats(float* row, int d, const Columns<L>& columns) {
  constexpr int kWidth = kVec<typename L::T>;
#pragma unroll
  for (int c = 0; c < L::kColumns; ++c) {
    const int at = first_column<L>(c / kWidth) + c % kWidth;
    if (at < d) row[at] = columns.value[c];
  }
}

/// sum + <a, b> over the thread's columns.
template <class L>
__device__ float dot(const Columns<L>& a, const Columns<L>& b, float sum = 0.0f) {
#pragma unroll
  for (int c = 0; c < L::kColumns; ++c) sum = fmaf(a.value[c], b.value[c], sum);
  return sum;
}
/// to += factor * a
template <class L>
__device__ void add_scaled(Columns<L>& to, float factor, const Columns<L>& a) {
#pragma unroll
  for (int c = 0; c < L::kColumns; ++c) to.value[c] = fmaf(factor, a.value[c], to.value[c]);
}

/// A lane keeps kHalf of its 2 * kHalf values, chosen by a bit of its number, and adds its partner's values to them.
template <int kHalf>
__device__ void fold(float* value) {
  const bool upper = (threadIdx.x & kHalf) != 0;
#pragma unroll
  for (int i = 0; i < kHalf; ++i) {
    const float given = upper ? value[i] : value[i + kHalf], kept = upper ? value[i + kHalf] : value[i];
    value[i] = kept + __shfl_xor_sync(kFullMask, given, kHalf);
  }
  if constexpr (kHalf > 1) fold<kHalf / 2>(value);
}
/// The warp's sums of N values at once, N a power of two up to 32: lane l gets that of value l % N. Every exchange
/// halves the values that a lane still carries, so that 32 of them cost 31 exchanges instead of 160.
template <int N>
__device__ float warp_sums(float (&value)[N]) {
  if constexpr (N > 1) fold<N / 2>(value);
  float sum = value[0];
#pragma unroll
  for (int offset = N; offset < kWarp; offset *= 2) sum += __shfl_xor_sync(kFullMask, sum, offset);
  return sum;
}

/// The sum over the block's warps of their values at `i`.
template <int kWarps, int N>
__device__ float over_warps(const float (&shared)[kWarps][N], int i) {
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  float sum = shared[0][i];
#pragma unroll
  for (int w = 1; w < kWarps; ++w)
    if (w < warps) sum += shared[w][i];
  return sum;
}

/// As warp_sums over the whole block; lane l of every warp gets the sum of value l % N. It has one barrier; the caller
/// needs another one before the next use of `shared`.
template <int N, int kWarps>
__device__ float block_sums(float (&value)[N], float (&shared)[kWarps][N]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const float mine = warp_sums(value);
  if (lane < N) shared[warp][lane] = mine;
  __syncthreads();
  return over_warps(shared, lane % N);
}

}  // namespace routescope::kernels::cuda
