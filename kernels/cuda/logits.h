// A row of logits for the loss kernels: pieces of 16 bytes that start on 16 bytes wherever the row itself starts, so
// that any size of vocabulary (50257, 151643) moves at full speed; and the running maximum and sum of exponentials of a
// softmax.
#pragma once

#include "kernels/cuda/parts/reduce.h"
#include "kernels/cuda/parts/vec.h"

namespace routescope::kernels::cuda {

/// Element i of piece v is column v * kVec<T> - shift + i; columns outside the row count as -inf.
template <class T>
struct LogitsRow {
  const T* data;
  int n;
  int shift;   // elements between the 16-byte boundary and the row
  bool whole;  // pieces may move at once; otherwise element by element

  /// `whole`: all rows that are read together start equally far from a 16-byte boundary.
  __device__ LogitsRow(const T* data_, int n_, bool whole_)
      : data(data_),
        n(n_),
        shift(whole_ ? static_cast<int>(reinterpret_cast<std::uintptr_t>(data_) % 16 / sizeof(T)) : 0),
        whole(whole_) {}

  __device__ int pieces() const { return ceil_div(n + shift, kVec<T>); }
  __device__ int begin(int v) const { return v * kVec<T> - shift; }
  __device__ bool complete(int v) const { return whole && begin(v) >= 0 && begin(v) + kVec<T> <= n; }

  __device__ uint4 load(int v) const {
    if (complete(v)) return load_raw(data + begin(v));
    Vec<T> out;
#pragma unroll
    for (int i = 0; i < kVec<T>; ++i) {
      const int column = begin(v) + i;
      out.value[i] = column >= 0 && column < n ? routescope::kernels::cuda::load(data + column) : -INFINITY;
    }
    return pack(out);
  }
  /// Pieces v, v + step, ... All loads are in flight at once, except at the ends of the row.
  template <int kCount>
  __device__ void load(uint4 (&z)[kCount], int v, int step) const {
    if (complete(v) && complete(v + (kCount - 1) * step)) {
#pragma unroll
      for (int k = 0; k < kCount; ++k) z[k] = load_raw(data + begin(v + k * step));
    } else {
#pragma unroll
      for (int k = 0; k < kCount; ++k) z[k] = load(v + k * step);
    }
  }
  /// To a row that starts where this one does, or as far from a 16-byte boundary. The values are not read again soon.
  __device__ void store(T* to, int v, const Vec<T>& values) const {
    if (complete(v)) {
      __stcs(reinterpret_cast<uint4*>(to + begin(v)), pack(values));
      return;
    }
#pragma unroll
    for (int i = 0; i < kVec<T>; ++i) {
      const int column = begin(v) + i;
      if (column >= 0 && column < n) routescope::kernels::cuda::store(to + column, values.value[i]);
    }
  }
};

/// The largest of the logits seen so far, and the sum of exp(logit - largest).
struct OnlineSoftmax {
  float largest = -3.402823466e+38f;  // not -inf: the difference of two of these must be a number
  float sum = 0;

  /// Takes kCount pieces at once: one change of the maximum for all of them.
  template <class T, int kCount>
  __device__ void take(const uint4 (&pieces)[kCount]) {
    float former = largest;
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      const Vec<T> z = unpack(pieces[k], T{});
#pragma unroll
      for (int i = 0; i < kVec<T>; ++i) largest = fmaxf(largest, z.value[i]);
    }
    sum *= __expf(former - largest);
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      const Vec<T> z = unpack(pieces[k], T{});
#pragma unroll
      for (int i = 0; i < kVec<T>; ++i) sum += __expf(z.value[i] - largest);
    }
  }

  /// Of the whole block; all its threads take part.
  __device__ void combine(BlockShared<float>& shared) {
    const float former = largest;
    largest = block_max(largest, shared);
    sum = block_sum(sum * __expf(former - largest), shared);
  }
};

}  // namespace routescope::kernels::cuda
