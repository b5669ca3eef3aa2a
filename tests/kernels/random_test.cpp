// Random numbers: Philox against its authors' published answers, the normals' moments, and that a number depends on
// nothing but seed, sequence and index. Also the conversions to bf16.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/kernels/op_case.h"

namespace routescope::testing {
namespace {

const kernels::Stream kStream;

void expect_words(const kernels::Philox4x32& actual, std::initializer_list<std::uint32_t> expected) {
  int i = 0;
  for (std::uint32_t word : expected) EXPECT_EQ(actual.word[i++], word);
}

/// kat_vectors of Random123, the authors' own distribution.
TEST(Random, PhiloxKnownAnswers) {
  constexpr std::uint32_t kOnes = 0xffffffffu;
  expect_words(kernels::philox4x32_10({{0, 0, 0, 0}}, 0, 0), {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  expect_words(kernels::philox4x32_10({{kOnes, kOnes, kOnes, kOnes}}, kOnes, kOnes),
               {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  expect_words(kernels::philox4x32_10({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0xa4093822, 0x299f31d0),
               {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST(Random, CounterAndKeyAreBlockSequenceAndSeed) {
  const kernels::Philox4x32 a = kernels::random_words(0x299f31d0a4093822u, 0x0370734413198a2eu, 0x85a308d3243f6a88u);
  expect_words(a, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

/// Of n standard normals the k-th moment is off its value by about sqrt(var / n); five of that is allowed.
TEST(Random, NormalMoments) {
  const std::int64_t n = 1 << 20;
  const kernels::OwnedTensor x(kernels::DType::f32, kernels::Device::cpu, {n});
  kernels::random_normal(x.tensor, 1, kSeed, 1, kStream);
  double sum[5] = {}, product = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const double value = get(x.tensor, i);
    for (int power = 1; power <= 4; ++power) sum[power] += std::pow(value, power);
    if (i) product += value * get(x.tensor, i - 1);
  }
  const double samples = static_cast<double>(n);
  EXPECT_NEAR(sum[1] / samples, 0, 5 * std::sqrt(1 / samples));
  EXPECT_NEAR(sum[2] / samples, 1, 5 * std::sqrt(2 / samples));
  EXPECT_NEAR(sum[3] / samples, 0, 5 * std::sqrt(15 / samples));
  EXPECT_NEAR(sum[4] / samples, 3, 5 * std::sqrt(96 / samples));
  EXPECT_NEAR(product / samples, 0, 5 * std::sqrt(1 / samples));  // neighbours are independent
}

TEST(Random, TailsReachFarAndStayFinite) {
  const std::int64_t n = 1 << 20;
  const kernels::OwnedTensor x(kernels::DType::f64, kernels::Device::cpu, {n});
  kernels::random_normal(x.tensor, 1, kSeed, 2, kStream);
  double largest = 0;
  for (std::int64_t i = 0; i < n; ++i) largest = std::fmax(largest, std::fabs(get(x.tensor, i)));
  EXPECT_GT(largest, 4.2);                                       // missed with probability exp(-28)
  EXPECT_LT(largest, std::sqrt(2 * 33 * std::log(2.0)) + 1e-9);  // the smallest uniform is 2^-33
}

TEST(Random, APrefixDoesNotDependOnTheLength) {
  const kernels::OwnedTensor longer(kernels::DType::f32, kernels::Device::cpu, {70003}),
      shorter(kernels::DType::f32, kernels::Device::cpu, {16385});
  kernels::random_normal(longer.tensor, 0.5, 11, 4, kStream);
  kernels::random_normal(shorter.tensor, 0.5, 11, 4, kStream);
  for (std::int64_t i = 0; i < 16385; ++i) ASSERT_EQ(get(longer.tensor, i), get(shorter.tensor, i)) << i;
  for (const std::int64_t i : {0, 1, 2, 3, 4, 16383, 16384, 70002}) {
    double block[4];
    kernels::random_normals(block, 11, 4, static_cast<std::uint64_t>(i / 4));
    EXPECT_EQ(get(longer.tensor, i), static_cast<double>(static_cast<float>(0.5 * block[i % 4]))) << i;
  }
}

TEST(Random, SeedsAndSequencesDiffer) {
  const kernels::OwnedTensor a(kernels::DType::f32, kernels::Device::cpu, {64}),
      b(kernels::DType::f32, kernels::Device::cpu, {64}), c(kernels::DType::f32, kernels::Device::cpu, {64});
  kernels::random_normal(a.tensor, 1, 1, 1, kStream);
  kernels::random_normal(b.tensor, 1, 2, 1, kStream);
  kernels::random_normal(c.tensor, 1, 1, 2, kStream);
  EXPECT_NE(values_of(a.tensor), values_of(b.tensor));
  EXPECT_NE(values_of(a.tensor), values_of(c.tensor));
}

TEST(Bf16, RoundsToNearestEven) {
  const auto round = [](double x) { return static_cast<double>(kernels::to_float(kernels::to_bf16(x))); };
  const double ulp = 0x1p-7;  // of numbers in [1, 2)
  EXPECT_EQ(round(1 + 0.49 * ulp), 1);
  EXPECT_EQ(round(1 + 0.51 * ulp), 1 + ulp);
  EXPECT_EQ(round(1 + 0.5 * ulp), 1);            // a tie goes to the even neighbour
  EXPECT_EQ(round(1 + 1.5 * ulp), 1 + 2 * ulp);  // here the upper one
  // Just above a tie by less than a float can say: one rounding, not two.
  EXPECT_EQ(round(1 + 0.5 * ulp + 0x1p-40), 1 + ulp);
  EXPECT_EQ(round(-(1 + 0.5 * ulp + 0x1p-40)), -(1 + ulp));
  EXPECT_EQ(round(1 + 1.5 * ulp - 0x1p-40), 1 + ulp);
  EXPECT_EQ(round(std::numeric_limits<double>::infinity()), std::numeric_limits<double>::infinity());
  EXPECT_TRUE(std::isnan(round(std::nan(""))));
  EXPECT_EQ(kernels::to_bf16(3.3e38f).bits, 0x7f78);
  EXPECT_EQ(kernels::to_bf16(std::numeric_limits<float>::max()).bits,
            0x7f80);  // rounds up to infinity, as nearest-even says
}

TEST(Cast, EveryPairOfTypes) {
  const std::vector<double> start = random_numbers(1001, 3);
  for (const kernels::DType from : {kernels::DType::f64, kernels::DType::f32, kernels::DType::bf16}) {
    const kernels::OwnedTensor src(from, kernels::Device::cpu, {1001});
    for (std::int64_t i = 0; i < 1001; ++i) set(src.tensor, i, start[static_cast<std::size_t>(i)]);
    for (const kernels::DType to : {kernels::DType::f64, kernels::DType::f32, kernels::DType::bf16}) {
      const kernels::OwnedTensor dst(to, kernels::Device::cpu, {1001});
      kernels::cast(dst.tensor, src.tensor, kStream);
      for (std::int64_t i = 0; i < 1001; ++i) ASSERT_EQ(get(dst.tensor, i), rounded(get(src.tensor, i), to));
    }
  }
}

}  // namespace
}  // namespace routescope::testing
