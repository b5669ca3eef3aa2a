// An array in the emulated device's memory, for the emulator's own tests.
#pragma once

#include <gtest/gtest.h>

#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/driver.h"
#include "kernels/cuda/parts/launch.h"

namespace simt {

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t count, T value = T{}) : DeviceArray(std::vector<T>(count, value)) {}
  explicit DeviceArray(const std::vector<T>& values)
      : count_(values.size()), data_(static_cast<T*>(routescope::kernels::cuda::driver::allocate(bytes()))) {
    routescope::kernels::cuda::driver::copy(data_, values.data(), bytes(), nullptr);
  }
  ~DeviceArray() { routescope::kernels::cuda::driver::release(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() const { return data_; }
  std::size_t bytes() const { return count_ * sizeof(T); }
  std::vector<T> host() const {
    std::vector<T> values(count_);
    routescope::kernels::cuda::driver::copy(values.data(), data_, bytes(), nullptr);
    return values;
  }

 private:
  std::size_t count_;
  T* data_;
};

/// Starts a kernel of `threads` threads a block on the default stream.
template <class... Parameters, class... Arguments>
void run_kernel(void (*kernel)(Parameters...), unsigned blocks, int threads, std::size_t shared_bytes,
                const Arguments&... arguments) {
  routescope::kernels::cuda::launch("of_a_test", kernel, {dim3(blocks), threads, shared_bytes},
                                    routescope::kernels::Stream{}, arguments...);
}

/// What body() throws; empty if it does not throw.
template <class Body>
std::string error_of(Body&& body) {
  try {
    body();
  } catch (const std::exception& error) {
    return error.what();
  }
  return {};
}

/// Passes if `text` contains each of `parts`.
inline ::testing::AssertionResult mentions(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts)
    if (text.find(part) == std::string::npos)
      return ::testing::AssertionFailure() << "'" << text << "' lacks '" << part << "'";
  return ::testing::AssertionSuccess();
}

/// Sets the seed for as long as it lives.
class Seeded {
 public:
  explicit Seeded(std::uint64_t value) : former_(seed()) { set_seed(value); }
  ~Seeded() { set_seed(former_); }
  Seeded(const Seeded&) = delete;
  Seeded& operator=(const Seeded&) = delete;

 private:
  std::uint64_t former_;
};

}  // namespace simt
