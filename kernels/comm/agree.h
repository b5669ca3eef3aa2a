// Errors that one rank meets and all must end by.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>

#include "kernels/comm/communicator.h"

namespace routescope::kernels {

/// Known to every rank: rank 0 reports it, the others end in silence.
class AgreedError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Runs `body`, which calls no collectives, on every rank. If it throws on any of them, every rank throws AgreedError
/// with the text of the lowest such rank ("rank 2: ..." unless it is rank 0's). A process alone: body's own exception.
void agree(Communicator& communicator, const std::string& what, const std::function<void()>& body);

}  // namespace routescope::kernels
