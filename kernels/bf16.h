// Conversions of bfloat16, round to nearest even. They work on bits, so that loops over them vectorise.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/tensor.h"

// Marks functions that the host and CUDA kernels share.
#ifdef __CUDACC__
#define ROUTESCOPE_HOST_DEVICE __host__ __device__
#else
#define ROUTESCOPE_HOST_DEVICE
#endif

namespace routescope::kernels {

ROUTESCOPE_HOST_DEVICE inline float to_float(float x) {
  return x;
}
ROUTESCOPE_HOST_DEVICE inline float to_float(bf16 x) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16);
}

ROUTESCOPE_HOST_DEVICE inline bf16 to_bf16(float x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  // Rounding could carry a NaN's payload into infinity; a quiet NaN is kept instead.
  const std::uint32_t nan = (bits >> 16) | 0x40u;
  return {static_cast<std::uint16_t>(x != x ? nan : rounded)};
}

/// From double in one rounding: the float in between is rounded to odd, which keeps the information of the digits that
/// were cut off.
ROUTESCOPE_HOST_DEVICE inline bf16 to_bf16(double x) {
  const float nearest = static_cast<float>(x);
  std::uint32_t bits = std::bit_cast<std::uint32_t>(nearest);
  if (!std::isinf(nearest) && nearest == nearest && static_cast<double>(nearest) != x) {
    if (std::fabs(static_cast<double>(nearest)) > std::fabs(x)) --bits;
    bits |= 1u;
  }
  return to_bf16(std::bit_cast<float>(bits));
}

template <class T>
ROUTESCOPE_HOST_DEVICE inline T from_float(float x);
template <>
ROUTESCOPE_HOST_DEVICE inline float from_float<float>(float x) {
  return x;
}
template <>
ROUTESCOPE_HOST_DEVICE inline bf16 from_float<bf16>(float x) {
  return to_bf16(x);
}

}  // namespace routescope::kernels
