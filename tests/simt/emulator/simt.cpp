// What kernels and their launches call (simt.h), in terms of the machine.
#include "tests/simt/emulator/simt.h"

#include <memory>
#include <string>
#include <utility>

#include "tests/simt/emulator/machine.h"
#include "tests/simt/emulator/streams.h"

namespace simt {

void set_seed(std::uint64_t seed) {
  Machine::instance().set_seed(seed);
}
std::uint64_t seed() {
  return Machine::instance().seed();
}

void launch(const char* kernel, dim3 grid, dim3 block, std::size_t shared_bytes, void* stream,
            std::function<void()> body) {
  enqueue(stream, kernel,
          [=, body = std::move(body)] { Machine::instance().run(kernel, grid, block, shared_bytes, body); });
}

void* shared_memory(std::size_t size, std::size_t align) {
  return Machine::in_kernel().shared_memory(size, align);
}

void fail(const std::string& message) {
  throw std::runtime_error(message);
}

// ---- asynchronous copies --------------------------------------------------------------------------------------------

void async_copy(void* shared_dst, const void* src, std::size_t bytes, std::size_t valid) {
  const auto misaligned = [bytes](const void* at) { return reinterpret_cast<std::uintptr_t>(at) % bytes != 0; };
  if ((bytes != 4 && bytes != 8 && bytes != 16) || valid > bytes || misaligned(shared_dst) || misaligned(src))
    fail("an asynchronous copy takes 4, 8 or 16 bytes, aligned to as many on both sides");
  EmulatedThread& thread = Machine::in_kernel().thread();
  AsyncCopy copy{static_cast<std::byte*>(shared_dst), {}, bytes, thread.open_group};
  std::memcpy(copy.bytes.data(), src, valid);
  // The bytes may land at any time from now on, so the former ones are gone.
  std::memset(shared_dst, 0xff, bytes);
  thread.copies.push_back(copy);
}

void async_commit() {
  ++Machine::in_kernel().thread().open_group;
}

void async_wait(int groups_left) {
  EmulatedThread& thread = Machine::in_kernel().thread();
  std::erase_if(thread.copies, [&](const AsyncCopy& copy) {
    const bool done = copy.group + static_cast<std::uint64_t>(groups_left) < thread.open_group;
    if (done) std::memcpy(copy.dst, copy.bytes.data(), copy.size);
    return done;
  });
}

}  // namespace simt
