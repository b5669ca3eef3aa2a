// Rows in pieces of 16 bytes. Kernels load and store rows of activations and weights in device memory only so.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/bf16.h"
#include "kernels/cuda/parts/launch.h"

namespace routescope::kernels::cuda {

/// Elements of T in 16 bytes.
template <class T>
inline constexpr int kVec = 16 / static_cast<int>(sizeof(T));

/// kVec<T> elements as floats.
template <class T>
struct Vec {
  float value[kVec<T>];
};

__device__ inline std::uint32_t pack_bf16(float low, float high) {
#ifdef __CUDA_ARCH__
  std::uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
#else
  return static_cast<std::uint32_t>(to_bf16(low).bits) | static_cast<std::uint32_t>(to_bf16(high).bits) << 16;
#endif
}

__device__ inline float low_bf16(std::uint32_t packed) {
  return __uint_as_float(packed << 16);
}
__device__ inline float high_bf16(std::uint32_t packed) {
  return __uint_as_float(packed & 0xffff0000u);
}

__device__ inline Vec<float> unpack(uint4 raw, float) {
  return {{__uint_as_float(raw.x), __uint_as_float(raw.y), __uint_as_float(raw.z), __uint_as_float(raw.w)}};
}
__device__ inline Vec<bf16> unpack(uint4 raw, bf16) {
  return {{low_bf16(raw.x), high_bf16(raw.x), low_bf16(raw.y), high_bf16(raw.y), low_bf16(raw.z), high_bf16(raw.z),
           low_bf16(raw.w), high_bf16(raw.w)}};
}
__device__ inline uint4 pack(const Vec<float>& v) {
  return make_uint4(__float_as_uint(v.value[0]), __float_as_uint(v.value[1]), __float_as_uint(v.value[2]),
                    __float_as_uint(v.value[3]));
}
__device__ inline uint4 pack(const Vec<bf16>& v) {
  return make_uint4(pack_bf16(v.value[0], v.value[1]), pack_bf16(v.value[2], v.value[3]),
                    pack_bf16(v.value[4], v.value[5]), pack_bf16(v.value[6], v.value[7]));
}

/// One element.
__device__ inline float load(const float* at) {
  return *at;
}
__device__ inline float load(const bf16* at) {
  return __uint_as_float(static_cast<std::uint32_t>(at->bits) << 16);
}
__device__ inline void store(float* at, float value) {
  *at = value;
}
__device__ inline void store(bf16* at, float value) {
  at->bits = static_cast<std::uint16_t>(pack_bf16(value, 0.0f));
}

/// kVec<T> elements as they lie in memory (half the registers of a Vec<bf16>); `at` is aligned to 16 bytes.
template <class T>
__device__ uint4 load_raw(const T* at) {
  return *reinterpret_cast<const uint4*>(at);
}
/// kVec<T> elements; `at` is aligned to 16 bytes.
template <class T>
__device__ Vec<T> load_vec(const T* at) {
  return unpack(load_raw(at), T{});
}
template <class T>
__device__ void store_vec(T* at, const Vec<T>& v) {
  *reinterpret_cast<uint4*>(at) = pack(v);
}

/// `count` elements from column `begin` of a row of d (fewer at its end; missing ones are 0). `aligned`: the row starts
/// on 16 bytes and d is a multiple of kVec<T>, so that whole vectors move.
template <class T>
__device__ Vec<T> load_row(const T* row, int begin, int d, bool aligned) {
  if (aligned) return load_vec(row + begin);
  Vec<T> v;
#pragma unroll
  for (int i = 0; i < kVec<T>; ++i) v.value[i] = begin + i < d ? load(row + begin + i) : 0.0f;
  return v;
}
template <class T>
__device__ void store_row(T* row, int begin, int d, bool aligned, const Vec<T>& v) {
  if (aligned) return store_vec(row + begin, v);
#pragma unroll
  for (int i = 0; i < kVec<T>; ++i)
    if (begin + i < d) store(row + begin + i, v.value[i]);
}

/// The same as it lies in memory, for kernels with many loads in flight: the compiler knows the layout, so there is no
/// branch between the loads, and nothing is unpacked before it is used. kWhole: rows start on 16 bytes and d is a
/// multiple of kVec<T>. Zeros where `there` is false.
template <bool kWhole, class T>
__device__ uint4 load_raw(const T* row, int begin, int d, bool there = true) {
  if constexpr (kWhole) return there && begin < d ? load_raw(row + begin) : make_uint4(0, 0, 0, 0);
  return there ? pack(load_row(row, begin, d, false)) : make_uint4(0, 0, 0, 0);
}
/// Calls body(std::true_type or std::false_type).
template <class Body>
void with_flag(bool flag, Body&& body) {
  if (flag)
    body(std::true_type{});
  else
    body(std::false_type{});
}

/// The same of a row of f32 beside a row of T (a gain, an embedding, a gradient of parameters): kVec<T> floats from
/// column `begin`, in one or two pieces of 16 bytes.
template <class T>
__device__ Vec<T> load_floats(const float* row, int begin, int d, bool aligned) {
  Vec<T> v;
#pragma unroll
  for (int part = 0; part < kVec<T>; part += kVec<float>) {
    const Vec<float> piece = load_row(row, begin + part, d, aligned);
#pragma unroll
    for (int i = 0; i < kVec<float>; ++i) v.value[part + i] = piece.value[i];
  }
  return v;
}
template <class T>
__device__ void store_floats(float* row, int begin, int d, bool aligned, const Vec<T>& v) {
#pragma unroll
  for (int part = 0; part < kVec<T>; part += kVec<float>) {
    Vec<float> piece;
#pragma unroll
    for (int i = 0; i < kVec<float>; ++i) piece.value[i] = v.value[part + i];
    store_row(row, begin + part, d, aligned, piece);
  }
}

/// Whether whole vectors can move from and to `data`.
inline bool vec_aligned(const void* data) {
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0;
}
/// Whether rows of d elements of T starting at `data` can move in whole vectors.
template <class T>
bool rows_aligned(const T* data, std::int64_t d) {
  return vec_aligned(data) && d % kVec<T> == 0;
}

/// Calls body(T{}) with float or bf16, the type of `t` (activations and operands of one call have one type).
template <class Body>
void with_type(const Tensor& t, Body&& body) {
  if (t.dtype == DType::bf16)
    body(bf16{});
  else
    body(float{});
}
/// Throws std::invalid_argument unless every defined tensor has the type of the first.
template <class... Tensors>
void require_one_type(const char* operation, const Tensor& first, const Tensors&... others) {
  const auto same = [&](const Tensor& t) { return !t || t.dtype == first.dtype; };
  if (!(same(others) && ...))
    throw std::invalid_argument(std::string(operation) + ": expected activations and operands of one type on CUDA");
}

}  // namespace routescope::kernels::cuda
