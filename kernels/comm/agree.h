// Errors of one rank that must end all ranks.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>

#include "kernels/comm/communicator.h"

namespace routescope::kernels {

/// An error that every rank has: rank 0 reports it, the others end silently.
class AgreedError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Runs `body`, which calls no collectives, on every rank. If it throws on any of them, every rank throws AgreedError
/// with the text of the lowest such rank ("rank 2: ..." unless it is rank 0's). A process alone: body's own exception.
void agree(Communicator& communicator, const std::string& what, const std::function<void()>& body);

}  // namespace routescope::kernels
