// CUDA's vocabulary for kernels that are compiled by the host's compiler: what kernels/cuda may use, and no more.
// __shared__ and __constant__ variables and atomics on floating-point numbers are missing on purpose.
#pragma once

#include <bit>
#include <cmath>
#include <concepts>
#include <cstdint>

#include "tests/simt/emulator/simt.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

// Set whenever a thread goes on.
extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;

// ---- meetings -------------------------------------------------------------------------------------------------------

inline void __syncthreads(const simt::Where& where = simt::Where::current()) {
  simt::barrier(where);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, const simt::Where& where = simt::Where::current()) {
  const simt::Meeting meeting(mask, "__syncwarp", where, nullptr, 0);
}

namespace simt {

template <class T>
concept Exchangeable = std::is_arithmetic_v<T> &&(sizeof(T) == 4 || sizeof(T) == 8);

/// The value of the lane that `source(lane, first, last)` names, where [first, last] is the caller's segment of `width`
/// lanes.
template <class T, class Source>
T shuffle(unsigned mask, const char* what, const Where& where, T mine, int width, Source source) {
  if (width < 1 || width > kWarp || (width & (width - 1)) != 0)
    fail(std::string(what) + ": a width of " + std::to_string(width) + " is not a power of two up to 32");
  using Bits = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
  const int first = lane() & ~(width - 1);
  const std::uint64_t received = exchange_word(mask, what, where, std::bit_cast<Bits>(mine), sizeof mine,
                                               source(lane(), first, first + width - 1));
  return std::bit_cast<T>(static_cast<Bits>(received));
}

}  // namespace simt

template <simt::Exchangeable T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, const simt::Where& where = simt::Where::current()) {
  return simt::shuffle(mask, "__shfl_sync", where, value, width,
                       [=](int, int first, int) { return first + (source & (width - 1)); });
}
template <simt::Exchangeable T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 const simt::Where& where = simt::Where::current()) {
  return simt::shuffle(mask, "__shfl_up_sync", where, value, width, [=](int lane, int first, int) {
    return delta > static_cast<unsigned>(lane - first) ? lane : lane - static_cast<int>(delta);
  });
}
template <simt::Exchangeable T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   const simt::Where& where = simt::Where::current()) {
  return simt::shuffle(mask, "__shfl_down_sync", where, value, width, [=](int lane, int, int last) {
    return delta > static_cast<unsigned>(last - lane) ? lane : lane + static_cast<int>(delta);
  });
}
template <simt::Exchangeable T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,
                  const simt::Where& where = simt::Where::current()) {
  return simt::shuffle(mask, "__shfl_xor_sync", where, value, width, [=](int lane, int, int last) {
    const int source = lane ^ (lane_mask & 31);
    return source > last ? lane : source;
  });
}

inline unsigned __ballot_sync(unsigned mask, int predicate, const simt::Where& where = simt::Where::current()) {
  return simt::vote(mask, "__ballot_sync", where, predicate != 0);
}
inline int __any_sync(unsigned mask, int predicate, const simt::Where& where = simt::Where::current()) {
  return simt::vote(mask, "__any_sync", where, predicate != 0) != 0;
}
inline int __all_sync(unsigned mask, int predicate, const simt::Where& where = simt::Where::current()) {
  return simt::vote(mask, "__all_sync", where, predicate != 0) == mask;
}

// ---- atomics --------------------------------------------------------------------------------------------------------

namespace simt {

/// *at = update(*at); returns what was there. No other thread comes in between, but one may just before.
template <class T, class Update>
T atomic(T* at, Update update) {
  maybe_switch();
  const T old = *at;
  *at = update(old);
  return old;
}

template <class T>
concept AtomicWord = std::same_as<T, int> || std::same_as<T, unsigned> || std::same_as<T, unsigned long long>;

}  // namespace simt

template <simt::AtomicWord T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  return simt::atomic(at, [=](T old) {
    using Bits = std::make_unsigned_t<T>;
    return static_cast<T>(static_cast<Bits>(old) + static_cast<Bits>(value));
  });
}
template <simt::AtomicWord T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  return simt::atomic(at, [=](T old) { return old < value ? value : old; });
}
template <simt::AtomicWord T>
T atomicMin(T* at, std::type_identity_t<T> value) {
  return simt::atomic(at, [=](T old) { return value < old ? value : old; });
}
template <simt::AtomicWord T>
T atomicExch(T* at, std::type_identity_t<T> value) {
  return simt::atomic(at, [=](T) { return value; });
}
template <simt::AtomicWord T>
T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return simt::atomic(at, [=](T old) { return old == expected ? value : old; });
}

// ---- bits, loads, arithmetic ----------------------------------------------------------------------------------------

inline int __popc(unsigned x) {
  return std::popcount(x);
}
inline int __ffs(int x) {
  return __builtin_ffs(x);
}
inline int __clz(int x) {
  return std::countl_zero(static_cast<unsigned>(x));
}

inline unsigned __float_as_uint(float x) {
  return std::bit_cast<unsigned>(x);
}
inline int __float_as_int(float x) {
  return std::bit_cast<int>(x);
}
inline float __uint_as_float(unsigned x) {
  return std::bit_cast<float>(x);
}
inline float __int_as_float(int x) {
  return std::bit_cast<float>(x);
}

template <class T>
T __ldg(const T* at) {
  return *at;
}
template <class T>
T __ldcs(const T* at) {
  return *at;
}
template <class T>
void __stcs(T* at, std::type_identity_t<T> value) {
  *at = value;
}

template <simt::Exchangeable T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <simt::Exchangeable T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}
inline float rsqrtf(float x) {
  return 1.0f / std::sqrt(x);
}
inline double rsqrt(double x) {
  return 1.0 / std::sqrt(x);
}
inline float __expf(float x) {
  return std::exp(x);
}
inline float __logf(float x) {
  return std::log(x);
}
inline float __fdividef(float x, float y) {
  return x / y;
}
