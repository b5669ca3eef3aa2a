// Reference: filling, converting, random numbers, addition.
#include "kernels/backends.h"
#include "kernels/bf16.h"
#include "kernels/random.h"

namespace routescope::kernels::reference {

namespace {

double get(const Tensor& t, std::int64_t i) {
  switch (t.dtype) {
    case DType::f64:
      return t.as<double>()[i];
    case DType::f32:
      return static_cast<double>(t.as<float>()[i]);
    case DType::bf16:
      return static_cast<double>(to_float(t.as<bf16>()[i]));
    case DType::i32:
      return static_cast<double>(t.as<std::int32_t>()[i]);
  }
  return 0;
}

void set(const Tensor& t, std::int64_t i, double value) {
  switch (t.dtype) {
    case DType::f64:
      t.as<double>()[i] = value;
      break;
    case DType::f32:
      t.as<float>()[i] = static_cast<float>(value);
      break;
    case DType::bf16:
      t.as<bf16>()[i] = to_bf16(value);
      break;
    case DType::i32:
      t.as<std::int32_t>()[i] = static_cast<std::int32_t>(value);
      break;
  }
}

}  // namespace

/// The reference takes its scratch from the heap, because it need not be fast.
std::size_t workspace_bytes(const WorkspaceLimits&) {
  return 0;
}

void fill(Tensor dst, double value, const Stream&) {
  for (std::int64_t i = 0; i < dst.numel(); ++i) set(dst, i, value);
}

void cast(Tensor dst, Tensor src, const Stream&) {
  for (std::int64_t i = 0; i < dst.numel(); ++i) set(dst, i, get(src, i));
}

void random_normal(Tensor dst, double std, std::uint64_t seed, std::uint64_t sequence, const Stream&) {
  for (std::int64_t i = 0; i < dst.numel(); ++i) {
    double block[4];
    random_normals(block, seed, sequence, static_cast<std::uint64_t>(i / 4));
    set(dst, i, std * block[i % 4]);
  }
}

void add(Tensor dst, Tensor src, const Stream&) {
  for (std::int64_t i = 0; i < dst.numel(); ++i) dst.as<double>()[i] += src.as<double>()[i];
}

}  // namespace routescope::kernels::reference
