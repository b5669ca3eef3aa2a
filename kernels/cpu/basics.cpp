// CPU: filling, converting, random numbers, addition. All bound by memory bandwidth, random_normal aside.
#include "kernels/backends.h"
#include "kernels/cpu/parts/operand.h"
#include "kernels/cpu/parts/parallel.h"
#include "kernels/cpu/parts/vec.h"
#include "kernels/random.h"

namespace routescope::kernels::cpu {

namespace {

template <class T>
void fill_with(T* dst, std::int64_t n, T value) {
  parallel_for(element_chunks(n),
               [=](std::int64_t, std::int64_t begin, std::int64_t end) { std::fill(dst + begin, dst + end, value); });
}

}  // namespace

void fill(Tensor dst, double value, const Stream&) {
  switch (dst.dtype) {
    case DType::f64:
      return fill_with(dst.as<double>(), dst.numel(), value);
    case DType::f32:
      return fill_with(dst.as<float>(), dst.numel(), static_cast<float>(value));
    case DType::bf16:
      return fill_with(dst.as<bf16>(), dst.numel(), to_bf16(value));
    case DType::i32:
      return fill_with(dst.as<std::int32_t>(), dst.numel(), static_cast<std::int32_t>(value));
  }
}

void cast(Tensor dst, Tensor src, const Stream&) {
  with_operand(dst, [&](auto* to) {
    with_operand(src, [&](const auto* from) {
      parallel_for(element_chunks(dst.numel()), [=](std::int64_t, std::int64_t begin, std::int64_t end) {
        for_columns(end - begin, [=](auto at) { at.store(to + begin, at.load(from + begin)); });
      });
    });
  });
}

void random_normal(Tensor dst, double std, std::uint64_t seed, std::uint64_t sequence, const Stream&) {
  with_operand(dst, [&]<class T>(T* out) {
    const std::int64_t n = dst.numel();
    parallel_for(element_chunks(n), [=](std::int64_t, std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; i += 4) {
        double block[4];
        random_normals(block, seed, sequence, static_cast<std::uint64_t>(i / 4));
        for (std::int64_t j = i; j < std::min(i + 4, end); ++j)
          out[j] = from_float<T>(static_cast<float>(std * block[j - i]));
      }
    });
  });
}

void add(Tensor dst, Tensor src, const Stream&) {
  float* to = dst.as<float>();
  const float* from = src.as<float>();
  parallel_for(element_chunks(dst.numel()), [=](std::int64_t, std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) to[i] += from[i];
  });
}

}  // namespace routescope::kernels::cpu
