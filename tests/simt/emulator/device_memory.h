// The emulated device's memory: pages of the host that can be reached only while the device works.
#pragma once

#include <cstddef>

namespace simt {

/// Whole of the emulated device's memory.
inline constexpr std::size_t kDeviceBytes = std::size_t{4} << 30;

/// Zeroed, aligned to 256 bytes, with red zones of AddressSanitizer to the exact byte on both sides. Throws
/// std::runtime_error when more than kDeviceBytes would be in use.
void* device_allocate(std::size_t bytes);
/// Ends the process for what is not the beginning of an allocation (a second release, for one).
void device_release(void* data) noexcept;
std::size_t device_bytes_in_use();

/// Whether a range lies in device memory (true) or in the host's (false). Throws std::runtime_error where it leaves an
/// allocation or begins in freed memory.
bool on_device(const void* data, std::size_t bytes, const char* what);

/// Opens device memory for as long as one of these lives.
class DeviceWorks {
 public:
  DeviceWorks();
  ~DeviceWorks();
  DeviceWorks(const DeviceWorks&) = delete;
  DeviceWorks& operator=(const DeviceWorks&) = delete;
};

}  // namespace simt
