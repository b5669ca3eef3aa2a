// Where an operation runs, and the scratch memory it may use while it runs.
#pragma once

#include <cstddef>
#include <stdexcept>

#include "kernels/tensor.h"

namespace routescope::kernels {

/// Operations on one stream run in order. `handle` is a cudaStream_t on CUDA and unused on the CPU.
/// `workspace` is lent to one operation at a time; ops.h's workspace_bytes() says how much is needed.
struct Stream {
  Device device = Device::cpu;
  void* handle = nullptr;
  std::byte* workspace = nullptr;
  std::size_t workspace_size = 0;
};

/// Cuts a stream's workspace into arrays for the length of one operation.
class Scratch {
 public:
  explicit Scratch(const Stream& stream) : next_(stream.workspace), left_(stream.workspace_size) {}

  /// `count` uninitialised elements, aligned to 64 bytes. Throws std::logic_error when the workspace is too small.
  template <class T>
  T* take(std::size_t count) {
    const std::size_t bytes = (count * sizeof(T) + 63) / 64 * 64;
    if (bytes > left_) throw std::logic_error("workspace too small for this operation (see workspace_bytes)");
    T* out = reinterpret_cast<T*>(next_);
    next_ += bytes;
    left_ -= bytes;
    return out;
  }

 private:
  std::byte* next_;
  std::size_t left_;
};

}  // namespace routescope::kernels
