// Central differences in double precision: the truth about a gradient that no derivation is needed for.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "tests/kernels/op_case.h"

namespace routescope::testing {

/// The largest error allowed, relative to the largest entry of the gradient.
inline constexpr double kGradientTolerance = 1e-6;

/// A defined f64 tensor with values of its own.
class Values {
 public:
  Values() = default;
  Values(const std::vector<std::int64_t>& shape, const std::vector<double>& values)
      : owned_(make_tensor(kernels::DType::f64, kernels::Device::cpu, shape)) {
    for (std::size_t i = 0; i < values.size(); ++i) owned_.tensor.as<double>()[i] = values[i];
  }
  // NOLINTNEXTLINE(google-explicit-constructor): operations take it as a tensor
  operator const kernels::Tensor&() const { return owned_.tensor; }
  const kernels::Tensor& tensor() const { return owned_.tensor; }
  double* data() const { return owned_.tensor.as<double>(); }

 private:
  kernels::OwnedTensor owned_;
};

inline Values zeros(const std::vector<std::int64_t>& shape) {
  return {shape, std::vector<double>(static_cast<std::size_t>(elements(shape)), 0.0)};
}

/// Random numbers: another stream for each call with another `stream`.
inline Values random_values(const std::vector<std::int64_t>& shape, std::uint64_t stream, double spread = 1,
                            double center = 0) {
  return {shape, random_numbers(elements(shape), stream, spread, center)};
}

inline double inner_product(const kernels::Tensor& a, const kernels::Tensor& b) {
  double sum = 0;
  for (std::int64_t i = 0; i < a.numel(); ++i) sum += a.as<double>()[i] * b.as<double>()[i];
  return sum;
}

/// Moves each entry of `at` up and down and compares the change of `loss` with `gradient`. The step balances the
/// truncation (step^2 f''' / 6) against cancellation (2^-53 |loss| / step): both are below 1e-9 for losses of order 10.
inline ::testing::AssertionResult is_gradient(const std::string& name, const std::function<double()>& loss,
                                              const kernels::Tensor& at, const kernels::Tensor& gradient) {
  constexpr double kStep = 1e-5;
  double largest = 0, worst = 0;
  std::int64_t where = 0;
  std::vector<double> differences(static_cast<std::size_t>(at.numel()));
  for (std::int64_t i = 0; i < at.numel(); ++i) {
    double& x = at.as<double>()[i];
    const double middle = x;
    x = middle + kStep;
    const double up = loss();
    x = middle - kStep;
    const double down = loss();
    x = middle;
    const double difference = (up - down) / (2 * kStep);
    differences[static_cast<std::size_t>(i)] = difference;
    largest = std::fmax(largest, std::fabs(difference));
  }
  for (std::int64_t i = 0; i < at.numel(); ++i) {
    const double error = std::fabs(differences[static_cast<std::size_t>(i)] - gradient.as<double>()[i]);
    if (!(error <= worst)) {
      worst = error;
      where = i;
    }
  }
  if (!(largest > 0)) return ::testing::AssertionFailure() << "the loss does not depend on " << name;
  if (worst <= kGradientTolerance * largest) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "d" << name << "[" << where << "] is " << gradient.as<double>()[where]
                                       << ", by finite differences " << differences[static_cast<std::size_t>(where)]
                                       << "; largest " << largest << ", seed " << kSeed;
}

}  // namespace routescope::testing
