// Cosines and sines of rotary angles, vectorised: the angle is reduced to [-pi/4, pi/4] in double, since position times
// frequency reaches thousands of turns, and the rest is float.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace routescope::kernels::cpu {

/// theta^(-2i/head_dim) for i in [0, head_dim/2).
inline void rotary_frequencies(double* frequency, std::int64_t head_dim, double theta) {
  for (std::int64_t i = 0; i < head_dim / 2; ++i)
    frequency[i] = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
}

/// cosine[i], sine[i] of position * frequency[i], absolute error below 1.5e-7.
inline void rotary_angles(float* cosine, float* sine, const double* frequency, std::int64_t half,
                          std::int64_t position) {
  constexpr double kTwoOverPi = 0.63661977236758134308, kHalfPi = 1.57079632679489661923;
  constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer
#pragma omp simd
  for (std::int64_t i = 0; i < half; ++i) {
    const double angle = static_cast<double>(position) * frequency[i];
    const double shifted = angle * kTwoOverPi + kRound;
    const auto quadrant = static_cast<std::uint32_t>(std::bit_cast<std::uint64_t>(shifted));
    const float r = static_cast<float>(angle - (shifted - kRound) * kHalfPi);
    const float r2 = r * r;
    // Taylor about 0 on |r| <= pi/4: the next terms are below 2e-9 (cosine) and 4e-9 (sine).
    const float c = 1.0f + r2 * (-0.5f + r2 * (1.0f / 24 + r2 * (-1.0f / 720 + r2 * (1.0f / 40320))));
    const float s = r + r * r2 * (-1.0f / 6 + r2 * (1.0f / 120 + r2 * (-1.0f / 5040 + r2 * (1.0f / 362880))));
    const bool swap = (quadrant & 1u) != 0;
    const float c_sign = ((quadrant + 1u) & 2u) ? -1.0f : 1.0f;
    const float s_sign = (quadrant & 2u) ? -1.0f : 1.0f;
    cosine[i] = c_sign * (swap ? s : c);
    sine[i] = s_sign * (swap ? c : s);
  }
}

}  // namespace routescope::kernels::cpu
