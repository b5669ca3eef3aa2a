// How far two computations of one thing may lie apart: the one policy of all kernel tests.
//
// A result in a type with p significant bits is off by its rounding, 2^-p of itself. A sum of k terms in float picks up
// k roundings of 2^-24 of the partial sums; roundings are as good as random, so together they grow like sqrt(k). The
// partial sums are of the size of the largest results where a test does not say that they cancel. kSafety covers the
// handful of roundings in each term (products, a normalisation, an exponential) and the tail of the random walk. Terms
// that were themselves rounded to bf16 beforehand bring an error of 2^-9 of the result's size, whatever the number of
// terms: k independent errors add up to sqrt(k) of one, as k independent terms do.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/tensor.h"

namespace routescope::testing {

inline constexpr double kSafety = 8;

inline double unit_roundoff(kernels::DType dtype) {
  switch (dtype) {
    case kernels::DType::f64:
      return 0x1p-53;
    case kernels::DType::f32:
      return 0x1p-24;
    case kernels::DType::bf16:
      return 0x1p-8;
    case kernels::DType::i32:
      return 0;
  }
  return 0;
}

struct Tolerance {
  kernels::DType stored;  // the type that the result was rounded to
  double reduction;       // k: how many terms were added up on the way to one result
  double magnitude = 0;   // the size of the partial sums, where the results are smaller because the sums cancelled
  double on_the_way = 0;  // the roundoff of the terms themselves, where it is not float's

  /// The largest error allowed of a result whose true value is `expected`, among results as large as `largest`.
  double of(double expected, double largest) const {
    return unit_roundoff(stored) * std::fabs(expected) +
           kSafety * std::fmax(unit_roundoff(kernels::DType::f32) * std::sqrt(std::fmax(1.0, reduction)), on_the_way) *
               std::fmax(largest, magnitude);
  }
};

/// Passes if every element of `actual` lies within the tolerance of `expected`; says where and how far the worst one is
/// off.
inline ::testing::AssertionResult near(const std::vector<double>& actual, const std::vector<double>& expected,
                                       const Tolerance& tolerance) {
  if (actual.size() != expected.size())
    return ::testing::AssertionFailure() << actual.size() << " elements, expected " << expected.size();
  double largest = 0;
  for (double value : expected)
    if (std::isfinite(value)) largest = std::fmax(largest, std::fabs(value));
  double worst = -1;
  std::size_t where = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    if (actual[i] == expected[i]) continue;
    const double allowed = tolerance.of(expected[i], largest);
    const double excess = std::fabs(actual[i] - expected[i]) / allowed;
    // Not "excess > worst" alone: a NaN has to count as the worst.
    if (!(excess <= worst)) {
      worst = excess;
      where = i;
      if (std::isnan(excess)) break;
    }
  }
  if (worst <= 1) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "element " << where << " is " << actual[where] << ", expected "
                                       << expected[where] << ": off by " << worst << " times the tolerance (largest "
                                       << largest << ", reduction over " << tolerance.reduction << ")";
}

}  // namespace routescope::testing
