// Fiber (fiber.h) over Boost.Context.
#include "tests/simt/emulator/fiber.h"

#include <sanitizer/asan_interface.h>

#include <boost/context/preallocated.hpp>
#include <utility>

namespace simt {

namespace {

// Room for a kernel's frames, which AddressSanitizer makes larger. Pages count once they are touched.
constexpr std::size_t kStackBytes = std::size_t{128} << 10;

boost::context::protected_fixedsize_stack stacks() {
  return boost::context::protected_fixedsize_stack(kStackBytes);
}

/// Boost would free the stack when the fiber's function ends; here the Fiber does.
struct NoStacks {
  boost::context::stack_context allocate() { return {}; }
  void deallocate(boost::context::stack_context&) noexcept {}
};

}  // namespace

Fiber::Fiber(Loop loop) : loop_(std::move(loop)), memory_(stacks().allocate()) {
  // sp is the highest address; the lowest page is the guard.
  stack_ = static_cast<char*>(memory_.sp) - memory_.size;
  stack_size_ = memory_.size;
  context_ = boost::context::fiber(std::allocator_arg, boost::context::preallocated(memory_.sp, memory_.size, memory_),
                                   NoStacks{},
                                   [this](boost::context::fiber&& former) { return enter(*this, std::move(former)); });
}

Fiber::~Fiber() {
  if (!memory_.sp) return;
  // Whoever is given these pages next finds none of the marks of our frames.
  __asan_unpoison_memory_region(static_cast<char*>(memory_.sp) - memory_.size, memory_.size);
  stacks().deallocate(memory_);
}

boost::context::fiber Fiber::enter(Fiber& self, boost::context::fiber&& former) {
  const void* stack = nullptr;
  std::size_t size = 0;
  __sanitizer_finish_switch_fiber(nullptr, &stack, &size);
  arrived(std::move(former), stack, size);
  Fiber& next = self.loop_();
  former_ = &self;
  __sanitizer_start_switch_fiber(nullptr, next.stack_, next.stack_size_);
  return std::move(next.context_);
}

}  // namespace simt
