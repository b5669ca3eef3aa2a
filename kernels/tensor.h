// A tensor is a view: where the numbers are, what type they have, and their shape. It owns nothing (memory.h does).
#pragma once

#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <stdexcept>
#include <string>

namespace routescope::kernels {

enum class Device : std::uint8_t { cpu, cuda };

/// Element types. f64 on the CPU selects the reference implementation of every operation, f32 the fast one.
/// bf16 holds operands of matrix products; i32 holds token ids.
enum class DType : std::uint8_t { f64, f32, bf16, i32 };

constexpr std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return 8;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::bf16:
      return 2;
  }
  return 0;
}

/// bfloat16: the upper half of a float. Arithmetic is done in float; this type only stores.
struct bf16 {
  std::uint16_t bits;
};

template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<double>() {
  return DType::f64;
}
template <>
constexpr DType dtype_of<float>() {
  return DType::f32;
}
template <>
constexpr DType dtype_of<bf16>() {
  return DType::bf16;
}
template <>
constexpr DType dtype_of<std::int32_t>() {
  return DType::i32;
}

/// Contiguous, row-major, at most four axes. An undefined tensor (data == nullptr) stands for "absent".
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::f32;
  Device device = Device::cpu;
  int rank = 0;
  std::array<std::int64_t, 4> shape{1, 1, 1, 1};

  Tensor() = default;
  Tensor(void* data_, DType dtype_, Device device_, std::initializer_list<std::int64_t> shape_)
      : data(data_), dtype(dtype_), device(device_), rank(static_cast<int>(shape_.size())) {
    if (shape_.size() > 4) throw std::invalid_argument("a tensor has at most four axes");
    std::size_t axis = 0;
    for (std::int64_t extent : shape_) shape[axis++] = extent;
  }

  bool defined() const { return data != nullptr; }
  explicit operator bool() const { return defined(); }
  std::int64_t numel() const { return shape[0] * shape[1] * shape[2] * shape[3]; }
  std::size_t bytes() const { return static_cast<std::size_t>(numel()) * size_of(dtype); }

  /// The elements as T. T must be the tensor's own type.
  template <class T>
  T* as() const {
    assert(!data || dtype == dtype_of<T>());
    return static_cast<T*>(data);
  }
  template <class T>
  std::span<T> span() const {
    return {as<T>(), static_cast<std::size_t>(numel())};
  }

  /// The same elements under another shape with as many elements.
  Tensor view(std::initializer_list<std::int64_t> new_shape) const {
    Tensor out(data, dtype, device, new_shape);
    if (out.numel() != numel()) throw std::invalid_argument("view: the number of elements differs");
    return out;
  }
  /// Rows [begin, end) of the first axis.
  Tensor rows(std::int64_t begin, std::int64_t end) const {
    assert(0 <= begin && begin <= end && end <= shape[0]);
    Tensor out = *this;
    const std::int64_t row = shape[1] * shape[2] * shape[3];
    out.data = static_cast<std::byte*>(data) + static_cast<std::size_t>(begin * row) * size_of(dtype);
    out.shape[0] = end - begin;
    return out;
  }
  /// `count` elements from element `offset` of the flat storage, under a shape.
  Tensor slice(std::int64_t offset, std::initializer_list<std::int64_t> new_shape) const {
    Tensor out(static_cast<std::byte*>(data) + static_cast<std::size_t>(offset) * size_of(dtype), dtype, device,
               new_shape);
    assert(offset >= 0 && offset + out.numel() <= numel());
    return out;
  }
};

}  // namespace routescope::kernels
