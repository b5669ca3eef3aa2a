// Loops over one row of floats (or bf16, converted on the way), written so that the compiler vectorises them.
// Reductions keep 64 partial sums, which hides the latency of addition and, being summed pairwise, its error.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/bf16.h"

namespace routescope::cpu {

inline constexpr int kLanes = 64;

/// Adds up the lanes of a reduction by halves.
inline float sum_lanes(float* lanes) {
  for (int width = kLanes / 2; width > 0; width /= 2) {
#pragma omp simd
    for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
  }
  return lanes[0];
}

/// sum_j term(j) for j in [0, n).
template <class Term>
inline float sum_over(std::int64_t n, Term&& term) {
  alignas(64) float lanes[kLanes] = {};
  const std::int64_t whole = n / kLanes * kLanes;
  for (std::int64_t j = 0; j < whole; j += kLanes) {
#pragma omp simd
    for (int l = 0; l < kLanes; ++l) lanes[l] += term(j + l);
  }
  for (std::int64_t j = whole; j < n; ++j) lanes[j - whole] += term(j);
  return sum_lanes(lanes);
}

/// max_j term(j) for j in [0, n), or `lowest` if that is larger. NaN terms are passed over.
template <class Term>
inline float max_over(std::int64_t n, float lowest, Term&& term) {
  alignas(64) float lanes[kLanes];
  for (float& lane : lanes) lane = lowest;
  const std::int64_t whole = n / kLanes * kLanes;
  for (std::int64_t j = 0; j < whole; j += kLanes) {
#pragma omp simd
    for (int l = 0; l < kLanes; ++l) {
      const float value = term(j + l);
      lanes[l] = value > lanes[l] ? value : lanes[l];
    }
  }
  for (std::int64_t j = whole; j < n; ++j) {
    const float value = term(j);
    lanes[j - whole] = value > lanes[j - whole] ? value : lanes[j - whole];
  }
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int l = 0; l < width; ++l) lanes[l] = lanes[l + width] > lanes[l] ? lanes[l + width] : lanes[l];
  return lanes[0];
}

inline float dot(const float* a, const float* b, std::int64_t n) {
  return sum_over(n, [=](std::int64_t j) { return a[j] * b[j]; });
}

inline float sum_of_squares(const float* a, std::int64_t n) {
  return sum_over(n, [=](std::int64_t j) { return a[j] * a[j]; });
}

/// exp(x) to about 1 ulp, without branches. 0 below -87.3 (where floats become subnormal), so also for -inf; the
/// largest finite result above 88.7; NaN stays NaN.
inline float exp_f32(float x) {
  constexpr float kLowest = -87.33f, kHighest = 88.72f;
  constexpr float kLog2e = 1.44269504088896341f;
  // ln 2 in two parts, the first with few enough bits that its product with an exponent is exact.
  constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  // Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits.
  constexpr float kRound = 12582912.0f;
  const float clamped = x < kLowest ? kLowest : (x > kHighest ? kHighest : x);
  const float shifted = clamped * kLog2e + kRound;
  const float n = shifted - kRound;
  const float r = (clamped - n * kLn2High) - n * kLn2Low;  // |r| <= ln 2 / 2
  // Taylor to the seventh power: the next term is below 6e-9 of the result.
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  const float result =
      std::bit_cast<float>(std::bit_cast<std::uint32_t>(p) + (std::bit_cast<std::uint32_t>(shifted) << 23));
  return x < kLowest ? 0.0f : result;
}

inline float sigmoid_f32(float x) {
  return 1.0f / (1.0f + exp_f32(-x));
}

}  // namespace routescope::cpu
