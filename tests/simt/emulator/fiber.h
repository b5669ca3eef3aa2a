// Stacks that take turns on one thread of the host, in a way that AddressSanitizer follows.
#pragma once

#include <sanitizer/common_interface_defs.h>

#include <boost/context/fiber.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <cstddef>
#include <functional>
#include <utility>

namespace simt {

/// A stack of its own that runs `loop` from the first switch to it on; or, default-constructed, the stack that somebody
/// switches away from. A loop that returns hands over to the fiber that it returns, and must not be switched to again.
class Fiber {
 public:
  using Loop = std::function<Fiber&()>;

  Fiber() = default;
  explicit Fiber(Loop loop);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Leaves this fiber, which is the running one, for `next`; returns when somebody switches back. Inlined, as is all
  /// that stands between a kernel and here: a processor mispredicts each return on a stack that it did not see called.
  [[gnu::always_inline]] void switch_to(Fiber& next) {
    former_ = this;
    __sanitizer_start_switch_fiber(&fake_stack_, next.stack_, next.stack_size_);
    boost::context::fiber former = std::move(next.context_).resume();
    const void* stack = nullptr;
    std::size_t size = 0;
    __sanitizer_finish_switch_fiber(fake_stack_, &stack, &size);
    arrived(std::move(former), stack, size);
  }

 private:
  static boost::context::fiber enter(Fiber& self, boost::context::fiber&& former);
  /// Keeps where the former fiber stands, and what AddressSanitizer knows of its stack.
  static void arrived(boost::context::fiber&& context, const void* stack, std::size_t size) {
    former_->context_ = std::move(context);
    former_->stack_ = stack;
    former_->stack_size_ = size;
  }

  static inline Fiber* former_ = nullptr;  // who switched to the fiber that runs

  boost::context::fiber context_;  // where it stands while it does not run
  const void* stack_ = nullptr;    // lowest address
  std::size_t stack_size_ = 0;
  void* fake_stack_ = nullptr;  // AddressSanitizer's
  Loop loop_;
  boost::context::stack_context memory_{};  // empty for a stack that is not ours
};

}  // namespace simt
