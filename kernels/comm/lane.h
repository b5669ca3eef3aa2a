// How a communicator reports to the thread that answers the questions of other ranks.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace routescope::kernels {

/// The collectives of one kind of a rank, in their order, numbered 1, 2, ...
class Lane {
 public:
  virtual ~Lane() = default;
  /// This rank has come to a collective, and waits for the other ranks only.
  virtual void come_to(std::uint64_t number, const std::string& what) = 0;
  /// This rank has seen no progress for `seconds`. Asks the others where they are, and ends the process unless all of
  /// them have come by now. A second call for the same number also ends the process.
  virtual void overdue(std::uint64_t number, const std::string& what, double seconds) = 0;
  /// A collective failed: ends the process, with `status`.
  virtual void failed(int status, const std::string& line) = 0;
  /// Runs before a call above ends this process, for two seconds at most.
  virtual void before_end(std::function<void()> act) = 0;
};

}  // namespace routescope::kernels
