// What kernels and their launches call (simt.h), in terms of the machine.
#include "tests/simt/simt.h"

#include <memory>
#include <string>
#include <utility>

#include "tests/simt/machine.h"
#include "tests/simt/streams.h"

namespace simt {

namespace {

Machine& machine_in_kernel() {
  Machine& machine = Machine::instance();
  if (!machine.running()) throw std::logic_error("emulated device: called outside of a kernel");
  return machine;
}

}  // namespace

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
  return machine_in_kernel().shared_memory(size, align);
}

void fail(const std::string& message) {
  throw std::runtime_error(message);
}

int lane() {
  return Machine::instance().current() % kWarp;
}

void barrier(const Where& where) {
  machine_in_kernel().barrier(where);
}

void maybe_switch() {
  Machine::instance().maybe_switch();
}

// ---- meetings -------------------------------------------------------------------------------------------------------

Meeting::Meeting(unsigned mask, const char* what, const Where& where, const void* mine, std::size_t bytes)
    : bytes_(bytes) {
  Machine& machine = machine_in_kernel();
  EmulatedThread& thread = machine.thread();
  thread.mine = mine;
  machine.meet(Exchange::values, mask, what, where, bytes);
  values_ = thread.shown ? thread.shown->values.data() : nullptr;
}

Meeting::~Meeting() {
  Machine::instance().end_meeting();
}

std::uint64_t exchange_word(unsigned mask, const char* what, const Where& where, std::uint64_t mine, std::size_t bytes,
                            int source) {
  if ((mask >> source & 1u) == 0)
    fail(std::string(what) + " reads from lane " + std::to_string(source) + ", which the mask does not name");
  Machine& machine = machine_in_kernel();
  EmulatedThread& thread = machine.thread();
  thread.word = mine;
  thread.source = source;
  machine.meet(Exchange::shuffle, mask, what, where, bytes);
  return thread.received;
}

unsigned vote(unsigned mask, const char* what, const Where& where, bool yes) {
  Machine& machine = machine_in_kernel();
  EmulatedThread& thread = machine.thread();
  thread.word = yes ? 1 : 0;
  machine.meet(Exchange::vote, mask, what, where, sizeof yes);
  return static_cast<unsigned>(thread.received);
}

// ---- asynchronous copies --------------------------------------------------------------------------------------------

void async_copy(void* shared_dst, const void* src, std::size_t bytes, std::size_t valid) {
  const auto misaligned = [bytes](const void* at) { return reinterpret_cast<std::uintptr_t>(at) % bytes != 0; };
  if ((bytes != 4 && bytes != 8 && bytes != 16) || valid > bytes || misaligned(shared_dst) || misaligned(src))
    fail("an asynchronous copy takes 4, 8 or 16 bytes, aligned to as many on both sides");
  EmulatedThread& thread = machine_in_kernel().thread();
  AsyncCopy copy{static_cast<std::byte*>(shared_dst), {}, bytes, thread.open_group};
  std::memcpy(copy.bytes.data(), src, valid);
  // The bytes may land at any time from now on, so the former ones are gone.
  std::memset(shared_dst, 0xff, bytes);
  thread.copies.push_back(copy);
}

void async_commit() {
  ++machine_in_kernel().thread().open_group;
}

void async_wait(int groups_left) {
  EmulatedThread& thread = machine_in_kernel().thread();
  std::erase_if(thread.copies, [&](const AsyncCopy& copy) {
    const bool done = copy.group + static_cast<std::uint64_t>(groups_left) < thread.open_group;
    if (done) std::memcpy(copy.dst, copy.bytes.data(), copy.size);
    return done;
  });
}

}  // namespace simt
