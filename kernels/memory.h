// Who owns the numbers: Buffer (one allocation) and Arena (many tensors planned into one allocation).
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "kernels/tensor.h"

namespace routescope::kernels {

/// Owns zero-initialised memory on a device, aligned to 256 bytes. Throws std::bad_alloc (CPU) or std::runtime_error.
class Buffer {
 public:
  Buffer() = default;
  Buffer(std::size_t bytes, Device device);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  Device device() const { return device_; }

 private:
  void release();
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  Device device_ = Device::cpu;
};

/// Hands out tensors from one allocation. First run the code that takes the tensors against a planning arena, which
/// only counts; then against a real one of the counted size. The parts named on the way are the memory table that a run
/// prints.
class Arena {
 public:
  struct Part {
    std::string name;
    std::size_t bytes = 0;
  };

  /// A planning arena: take() returns tensors with an address that must not be touched.
  explicit Arena(Device device);
  /// An arena over `bytes` of fresh memory.
  Arena(Device device, std::size_t bytes);

  /// What follows is counted under this name.
  void begin_part(std::string name);
  /// An uninitialised tensor (the arena's memory starts as zeros). Throws std::logic_error past the end of a real
  /// arena.
  Tensor take(DType dtype, std::initializer_list<std::int64_t> shape);

  bool planning() const { return planning_; }
  std::size_t bytes() const { return used_; }
  const std::vector<Part>& parts() const { return parts_; }

 private:
  Device device_;
  bool planning_;
  Buffer buffer_;
  std::size_t used_ = 0;
  std::vector<Part> parts_;
};

/// A one-tensor convenience for tools and tests.
struct OwnedTensor {
  Buffer buffer;
  Tensor tensor;
  OwnedTensor() = default;
  OwnedTensor(DType dtype, Device device, std::initializer_list<std::int64_t> shape);
};

}  // namespace routescope::kernels
