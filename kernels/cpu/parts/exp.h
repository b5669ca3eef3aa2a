// exp by element, to about 1 ulp and without branches.
#pragma once

#include <bit>

#include "kernels/cpu/parts/vec.h"

namespace routescope::kernels::cpu {

/// 0 below -87.3 (where floats become subnormal), so also for -inf; the largest finite result above 88.7; NaN stays
/// NaN.
inline Vec exp(Vec x) {
  constexpr float kLowest = -87.33f, kHighest = 88.72f;
  constexpr float kLog2e = 1.44269504088896341f;
  // ln 2 in two parts, the first with few enough bits that its product with an exponent is exact.
  constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  // Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits.
  constexpr float kRound = 12582912.0f;
  Vec clamped = x < kLowest ? broadcast(kLowest) : x;
  clamped = clamped > kHighest ? broadcast(kHighest) : clamped;
  const Vec shifted = clamped * kLog2e + kRound;
  const Vec n = shifted - kRound;
  const Vec r = (clamped - n * kLn2High) - n * kLn2Low;  // |r| <= ln 2 / 2
  // Taylor to the seventh power: the next term is below 6e-9 of the result.
  Vec p = broadcast(1.0f / 5040);
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  const Vec result = std::bit_cast<Vec>(std::bit_cast<BitsVec>(p) + (std::bit_cast<BitsVec>(shifted) << 23));
  return x < kLowest ? Vec{} : result;
}

inline Vec sigmoid(Vec x) {
  return 1.0f / (1.0f + exp(-x));
}

inline float exp(float x) {
  return exp(broadcast(x))[0];
}

}  // namespace routescope::kernels::cpu
