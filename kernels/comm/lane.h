// What a communicator tells the thread that answers for this rank when others ask where it is.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace routescope::kernels {

/// Collectives of one kind of a rank, which come in one order and are numbered 1, 2, ...
class Lane {
 public:
  virtual ~Lane() = default;
  /// This rank has come to a collective: it waits for nothing but the others.
  virtual void come_to(std::uint64_t number, const std::string& what) = 0;
  /// It has seen no progress for `seconds`. Asks the others where they are. Ends the process unless all of them have
  /// come by now, and likewise when it is called for the same number again.
  virtual void overdue(std::uint64_t number, const std::string& what, double seconds) = 0;
  /// A collective failed: ends the process, with `status`.
  virtual void failed(int status, const std::string& line) = 0;
  /// Runs before this process is ended from here, for two seconds at most.
  virtual void before_end(std::function<void()> act) = 0;
};

}  // namespace routescope::kernels
