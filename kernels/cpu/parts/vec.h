// The CPU backend's vector: as many floats as a register of the machine holds, and loops over a row's columns in such
// vectors. The body of a loop is written once, for a place `at` that is either a whole vector of columns or the row's
// incomplete end:
//
//   for_columns(d, [&](auto at) { at.store(y, at.load(x) * scale); });
//   const float norm2 = sum_columns(d, [&](auto at) { return at.load(x) * at.load(x); });
//
// Rows are float or bf16, converted on the way. Reductions keep four vectors of partial sums, which hides the latency
// of addition and keeps its error small.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/bf16.h"

namespace routescope::kernels::cpu {

#if defined(__AVX512F__)
inline constexpr int kVecBytes = 64;
#elif defined(__AVX__)
inline constexpr int kVecBytes = 32;
#else
inline constexpr int kVecBytes = 16;
#endif
inline constexpr int kWidth = kVecBytes / 4;

// Compiler vectors (GCC, Clang): arithmetic is by element, comparisons give all-ones or zero, ?: selects by element.
typedef float Vec __attribute__((vector_size(kVecBytes)));
typedef std::int32_t IntVec __attribute__((vector_size(kVecBytes)));
typedef std::uint32_t BitsVec __attribute__((vector_size(kVecBytes)));
typedef std::uint16_t HalfBitsVec __attribute__((vector_size(kVecBytes / 2)));

inline Vec broadcast(float x) {
  return Vec{} + x;
}

inline Vec from_bf16_bits(HalfBitsVec bits) {
  return std::bit_cast<Vec>(__builtin_convertvector(bits, BitsVec) << 16);
}

/// As to_bf16(float) in bf16.h, by element.
inline HalfBitsVec to_bf16_bits(Vec x) {
  const BitsVec bits = std::bit_cast<BitsVec>(x);
  const BitsVec rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const BitsVec nan = (bits >> 16) | 0x40u;
  return __builtin_convertvector(x != x ? nan : rounded, HalfBitsVec);
}

/// kWidth columns from column j on.
struct Whole {
  std::int64_t j;

  Vec load(const float* row) const {
    Vec out;
    std::memcpy(&out, row + j, sizeof out);
    return out;
  }
  Vec load(const bf16* row) const {
    HalfBitsVec bits;
    std::memcpy(&bits, row + j, sizeof bits);
    return from_bf16_bits(bits);
  }
  void store(float* row, Vec x) const { std::memcpy(row + j, &x, sizeof x); }
  void store(bf16* row, Vec x) const {
    const HalfBitsVec bits = to_bf16_bits(x);
    std::memcpy(row + j, &bits, sizeof bits);
  }
  /// x where there are columns, `otherwise` beyond the row's end.
  Vec keep(Vec x, float) const { return x; }
};

/// The `count` < kWidth last columns of a row. Loads give zero beyond them, and stores write nothing there.
struct Part {
  std::int64_t j;
  std::int64_t count;

  template <class T>
  Vec load(const T* row) const {
    Vec out{};
    for (std::int64_t l = 0; l < count; ++l) out[l] = to_float(row[j + l]);
    return out;
  }
  template <class T>
  void store(T* row, Vec x) const {
    for (std::int64_t l = 0; l < count; ++l) row[j + l] = from_float<T>(x[l]);
  }
  Vec keep(Vec x, float otherwise) const {
    Vec out = broadcast(otherwise);
    for (std::int64_t l = 0; l < count; ++l) out[l] = x[l];
    return out;
  }
};

/// body(at) for every vector of columns of a row of n.
template <class Body>
inline void for_columns(std::int64_t n, Body&& body) {
  std::int64_t j = 0;
  for (; j + kWidth <= n; j += kWidth) body(Whole{j});
  if (j < n) body(Part{j, n - j});
}

/// body(count, at) for blocks of kVecs vectors (a power of two), then for smaller ones: `count` is an integral
/// constant, and the body takes the vectors at, next(at, 1), .. next(at, count - 1).
template <int kVecs, class Body>
inline void for_column_blocks(std::int64_t n, Body&& body, std::int64_t j = 0) {
  for (; j + kVecs * kWidth <= n; j += kVecs * kWidth) body(std::integral_constant<int, kVecs>{}, Whole{j});
  if constexpr (kVecs > 1) {
    for_column_blocks<kVecs / 2>(n, body, j);
  } else {
    if (j < n) body(std::integral_constant<int, 1>{}, Part{j, n - j});
  }
}

inline Whole next(Whole at, int vecs) {
  return {at.j + vecs * kWidth};
}
inline Part next(Part at, int) {
  return at;
}

/// The sum of a vector's elements, by halves.
inline float sum_lanes(Vec x) {
  float lanes[kWidth];
  std::memcpy(lanes, &x, sizeof x);
  for (int width = kWidth / 2; width > 0; width /= 2)
    for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
  return lanes[0];
}

inline float max_lanes(Vec x) {
  float lanes[kWidth];
  std::memcpy(lanes, &x, sizeof x);
  for (int width = kWidth / 2; width > 0; width /= 2)
    for (int l = 0; l < width; ++l) lanes[l] = lanes[l + width] > lanes[l] ? lanes[l + width] : lanes[l];
  return lanes[0];
}

/// The sum of term(at) over the columns of a row of n.
template <class Term>
inline float sum_columns(std::int64_t n, Term&& term) {
  Vec sum0{}, sum1{}, sum2{}, sum3{};
  std::int64_t j = 0;
  for (; j + 4 * kWidth <= n; j += 4 * kWidth) {
    sum0 += term(Whole{j});
    sum1 += term(Whole{j + kWidth});
    sum2 += term(Whole{j + 2 * kWidth});
    sum3 += term(Whole{j + 3 * kWidth});
  }
  for (; j + kWidth <= n; j += kWidth) sum0 += term(Whole{j});
  if (j < n) {
    const Part part{j, n - j};
    sum1 += part.keep(term(part), 0);
  }
  return sum_lanes((sum0 + sum1) + (sum2 + sum3));
}

inline Vec larger(Vec a, Vec b) {
  return b > a ? b : a;
}

/// The largest element of a row of n, or -infinity. NaNs are passed over.
inline float max_columns(const float* row, std::int64_t n) {
  constexpr float kLowest = -std::bit_cast<float>(0x7f800000u);
  Vec max0 = broadcast(kLowest), max1 = max0, max2 = max0, max3 = max0;
  std::int64_t j = 0;
  for (; j + 4 * kWidth <= n; j += 4 * kWidth) {
    max0 = larger(max0, Whole{j}.load(row));
    max1 = larger(max1, Whole{j + kWidth}.load(row));
    max2 = larger(max2, Whole{j + 2 * kWidth}.load(row));
    max3 = larger(max3, Whole{j + 3 * kWidth}.load(row));
  }
  for (; j + kWidth <= n; j += kWidth) max0 = larger(max0, Whole{j}.load(row));
  if (j < n) {
    const Part part{j, n - j};
    max1 = larger(max1, part.keep(part.load(row), kLowest));
  }
  return max_lanes(larger(larger(max0, max1), larger(max2, max3)));
}

inline float dot(const float* a, const float* b, std::int64_t n) {
  return sum_columns(n, [=](auto at) { return at.load(a) * at.load(b); });
}

inline float sum_of_squares(const float* a, std::int64_t n) {
  return sum_columns(n, [=](auto at) { return at.load(a) * at.load(a); });
}

}  // namespace routescope::kernels::cpu
