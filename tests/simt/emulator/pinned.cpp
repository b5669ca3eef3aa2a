// Pinned memory (pinned.h): a list of the copies under way, each with the bytes that it moves.
#include "tests/simt/emulator/pinned.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

namespace simt {

namespace {

struct Underway {
  char* host;
  bool to_host;
  std::vector<char> bytes;
  void* stream;
  std::uint64_t moment;

  bool overlaps(const char* begin, std::size_t size) const {
    return begin < host + bytes.size() && host < begin + size;
  }
};

struct Pinned {
  std::mutex mutex;
  std::map<const char*, std::size_t, std::less<>> allocations;
  std::list<Underway> underway;
  std::uint64_t moment = 0;

  static Pinned& instance() {
    static auto* const pinned = new Pinned;  // for whoever releases memory as the process ends
    return *pinned;
  }

  /// Ends those copies of which `which` is true; false if the host changed what one of them read.
  template <class Which>
  bool finish(Which which) {
    bool unchanged = true;
    underway.remove_if([&](const Underway& copy) {
      if (!which(copy)) return false;
      if (copy.to_host)
        std::memcpy(copy.host, copy.bytes.data(), copy.bytes.size());
      else
        unchanged = unchanged && std::memcmp(copy.host, copy.bytes.data(), copy.bytes.size()) == 0;
      return true;
    });
    return unchanged;
  }
  /// Copies that a later one on the same memory comes after.
  void finish_writes_to(const char* begin, std::size_t size) {
    finish([&](const Underway& copy) { return copy.to_host && copy.overlaps(begin, size); });
  }
  void start(Underway copy) {
    copy.moment = ++moment;
    underway.push_back(std::move(copy));
  }
};

constexpr const char* kChanged = "emulated device: pinned memory was changed while a copy from it was under way";

}  // namespace

void* pinned_allocate(std::size_t bytes) {
  Pinned& pinned = Pinned::instance();
  const std::lock_guard lock(pinned.mutex);
  void* data = ::operator new (bytes, std::align_val_t{64});
  std::memset(data, 0xff, bytes);
  pinned.allocations.emplace(static_cast<char*>(data), bytes);
  return data;
}

void pinned_release(void* data) noexcept {
  Pinned& pinned = Pinned::instance();
  const std::lock_guard lock(pinned.mutex);
  const auto found = pinned.allocations.find(static_cast<const char*>(data));
  if (found == pinned.allocations.end()) {
    std::fprintf(stderr, "emulated device: release of %p, which is not (or no longer) pinned\n", data);
    std::abort();
  }
  if (!pinned.finish([&](const Underway& copy) { return copy.overlaps(found->first, found->second); })) {
    std::fprintf(stderr, "%s\n", kChanged);
    std::abort();
  }
  pinned.allocations.erase(found);
  ::operator delete (data, std::align_val_t{64});
}

bool is_pinned(const void* data) {
  Pinned& pinned = Pinned::instance();
  const std::lock_guard lock(pinned.mutex);
  const auto* at = static_cast<const char*>(data);
  const auto next = pinned.allocations.upper_bound(at);
  return next != pinned.allocations.begin() && at < std::prev(next)->first + std::prev(next)->second;
}

void copy_to_pinned(void* dst, const void* src, std::size_t bytes, void* stream) {
  Pinned& pinned = Pinned::instance();
  const std::lock_guard lock(pinned.mutex);
  auto* host = static_cast<char*>(dst);
  pinned.finish_writes_to(host, bytes);
  const auto* from = static_cast<const char*>(src);
  pinned.start({host, true, {from, from + bytes}, stream, 0});
  std::memset(host, 0xff, bytes);
}

void copy_from_pinned(void* dst, const void* src, std::size_t bytes, void* stream) {
  Pinned& pinned = Pinned::instance();
  const std::lock_guard lock(pinned.mutex);
  auto* host = static_cast<char*>(const_cast<void*>(src));
  pinned.finish_writes_to(host, bytes);
  std::memcpy(dst, host, bytes);
  pinned.start({host, false, {host, host + bytes}, stream, 0});
}

std::uint64_t pinned_moment() {
  Pinned& pinned = Pinned::instance();
  const std::lock_guard lock(pinned.mutex);
  return pinned.moment;
}

void wait_for_pinned(void* stream, std::uint64_t moment) {
  Pinned& pinned = Pinned::instance();
  const std::lock_guard lock(pinned.mutex);
  // A stream's work comes after what the default stream was given before, and the default stream's after all.
  const auto covered = [&](const Underway& copy) {
    return copy.moment <= moment && (!stream || !copy.stream || copy.stream == stream);
  };
  if (!pinned.finish(covered)) throw std::runtime_error(kChanged);
}

}  // namespace simt
