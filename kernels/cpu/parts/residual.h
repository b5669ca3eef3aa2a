// The first step of a norm and of a read: p = p_in + y and the sum of its squares, in one pass over the row.
#pragma once

#include <cmath>

#include "kernels/cpu/parts/vec.h"

namespace routescope::kernels::cpu {

/// Row t of [tokens, d], or null for an undefined tensor.
inline const float* row_or_null(const Tensor& t, std::int64_t row) {
  return t ? t.as<float>() + row * t.shape[1] : nullptr;
}

/// p = p_in + y, null counting as zero; returns sum p^2. p may be p_in or y.
inline float add_rows(float* p, const float* p_in, const float* y, std::int64_t d) {
  if (p_in && y)
    return sum_columns(d, [=](auto at) {
      const Vec value = at.load(p_in) + at.load(y);
      at.store(p, value);
      return value * value;
    });
  const float* only = p_in ? p_in : y;
  return sum_columns(d, [=](auto at) {
    const Vec value = only ? at.load(only) : Vec{};
    at.store(p, value);
    return value * value;
  });
}

inline float inverse_rms(float sum_of_squares, std::int64_t d, double eps) {
  return 1.0f / std::sqrt(sum_of_squares / static_cast<float>(d) + static_cast<float>(eps));
}

}  // namespace routescope::kernels::cpu
