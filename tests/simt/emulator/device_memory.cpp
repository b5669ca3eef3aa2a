// Device memory (device_memory.h): an allocation is a mapping of its own, closed to everybody (PROT_NONE) while the
// device rests, so that host code which follows a device pointer dies at that very access.
#include "tests/simt/emulator/device_memory.h"

#include <sanitizer/asan_interface.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>

namespace simt {

namespace {

constexpr std::size_t kPage = 4096;

struct Allocation {
  std::size_t bytes = 0;
  char* pages = nullptr;  // one page of red zone, the bytes, and at least one page of red zone
  std::size_t page_bytes = 0;
};

class DeviceMemory {
 public:
  static DeviceMemory& instance() {
    // Never destroyed: whoever owns device memory may be destroyed after any static object.
    static auto* const memory = new DeviceMemory;
    return *memory;
  }

  void* allocate(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    if (bytes > kDeviceBytes - in_use_)
      throw std::runtime_error("CUDA: allocating " + std::to_string(bytes) + " bytes: out of memory");
    Allocation a{.bytes = bytes, .page_bytes = (bytes + kPage - 1) / kPage * kPage + 2 * kPage};
    void* pages =
        mmap(nullptr, a.page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED)
      throw std::runtime_error("CUDA: allocating " + std::to_string(bytes) + " bytes: the host has no memory left");
    a.pages = static_cast<char*>(pages);
    char* data = a.pages + kPage;
    __asan_unpoison_memory_region(a.pages, a.page_bytes);
    __asan_poison_memory_region(a.pages, kPage);
    __asan_poison_memory_region(data + bytes, static_cast<std::size_t>(a.pages + a.page_bytes - (data + bytes)));
    if (open_ == 0) mprotect(a.pages, a.page_bytes, PROT_NONE);
    in_use_ += bytes;
    allocations_.emplace(data, a);
    return data;
  }

  void release(void* data) noexcept {
    const std::lock_guard lock(mutex_);
    if (!data) return;
    const auto found = allocations_.find(static_cast<char*>(data));
    if (found == allocations_.end()) {
      std::fprintf(stderr, "emulated device: release of %p, which is not (or no longer) allocated\n", data);
      std::abort();
    }
    const Allocation a = found->second;
    allocations_.erase(found);
    in_use_ -= a.bytes;
    // The addresses stay closed and out of use for a while, so that a use after release is seen.
    mprotect(a.pages, a.page_bytes, PROT_NONE);
    madvise(a.pages, a.page_bytes, MADV_DONTNEED);
    freed_.push_back(a);
    while (freed_.size() > kKeptClosed) {
      __asan_unpoison_memory_region(freed_.front().pages, freed_.front().page_bytes);
      munmap(freed_.front().pages, freed_.front().page_bytes);
      freed_.pop_front();
    }
  }

  std::size_t in_use() const {
    const std::lock_guard lock(mutex_);
    return in_use_;
  }

  bool holds(const void* data, std::size_t bytes, const char* what) const {
    const std::lock_guard lock(mutex_);
    const auto* at = static_cast<const char*>(data);
    const auto describe = [&] { return std::string("CUDA: ") + what + ": " + std::to_string(bytes) + " bytes "; };
    // The allocation that begins last at or before the range; its pages begin one page earlier.
    auto next = allocations_.upper_bound(at + kPage);
    if (next != allocations_.begin()) {
      const auto& [begin, a] = *std::prev(next);
      if (at < a.pages + a.page_bytes && at + bytes > a.pages) {
        if (at < begin || at + bytes > begin + a.bytes)
          throw std::runtime_error(describe() + "from byte " + std::to_string(at - begin) + " of an allocation of " +
                                   std::to_string(a.bytes) + " bytes: invalid argument");
        return true;
      }
    }
    for (const Allocation& a : freed_)
      if (at < a.pages + a.page_bytes && at + bytes > a.pages)
        throw std::runtime_error(describe() + "in device memory that was released: invalid argument");
    return false;
  }

  void open() {
    const std::lock_guard lock(mutex_);
    if (open_++ == 0) protect(PROT_READ | PROT_WRITE);
  }
  void close() {
    const std::lock_guard lock(mutex_);
    if (--open_ == 0) protect(PROT_NONE);
  }

 private:
  static constexpr std::size_t kKeptClosed = 256;

  DeviceMemory() {
    std::atexit([] {
      const std::size_t left = instance().allocations_.size();
      if (left == 0) return;
      std::fprintf(stderr, "emulated device: %zu allocations (%zu bytes) were never released\n", left,
                   instance().in_use_);
      std::fflush(nullptr);
      _exit(1);
    });
  }
  void protect(int protection) {
    for (const auto& [data, a] : allocations_) mprotect(a.pages, a.page_bytes, protection);
  }

  mutable std::mutex mutex_;
  std::map<char*, Allocation, std::less<>> allocations_;
  std::deque<Allocation> freed_;
  std::size_t in_use_ = 0;
  int open_ = 0;
};

}  // namespace

void* device_allocate(std::size_t bytes) {
  return DeviceMemory::instance().allocate(bytes);
}
void device_release(void* data) noexcept {
  DeviceMemory::instance().release(data);
}
std::size_t device_bytes_in_use() {
  return DeviceMemory::instance().in_use();
}
bool on_device(const void* data, std::size_t bytes, const char* what) {
  return DeviceMemory::instance().holds(data, bytes, what);
}

DeviceWorks::DeviceWorks() {
  DeviceMemory::instance().open();
}
DeviceWorks::~DeviceWorks() {
  DeviceMemory::instance().close();
}

}  // namespace simt
