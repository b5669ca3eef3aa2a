// Stacks that take turns on one thread of the host, in a way that AddressSanitizer follows.
#pragma once

#include <boost/context/fiber.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <cstddef>
#include <functional>

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

  /// Leaves this fiber, which is the running one, for `next`; returns when somebody switches back.
  void switch_to(Fiber& next);

 private:
  static boost::context::fiber enter(Fiber& self, boost::context::fiber&& former);
  void arrived(boost::context::fiber&& former, const void* former_stack, std::size_t former_size);

  boost::context::fiber context_;  // where it stands while it does not run
  const void* stack_ = nullptr;    // lowest address
  std::size_t stack_size_ = 0;
  void* fake_stack_ = nullptr;  // AddressSanitizer's
  Loop loop_;
  boost::context::stack_context memory_{};  // empty for a stack that is not ours
};

}  // namespace simt
