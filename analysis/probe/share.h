// Ranks share the sequences of a measurement.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/comm/communicator.h"

namespace routescope::analysis {

/// Every rank measures some consecutive sequences of [begin, end), maybe none: body(first, last) returns their numbers,
/// one sequence after another, as many for each. Returns the numbers of all sequences, [sequence], on all ranks. If one
/// rank fails, all throw (agree()). `body` must not call collectives. `what` names the collective.
std::vector<std::vector<double>> share_sequences(
    std::int64_t begin, std::int64_t end, const std::string& what, kernels::Communicator& communicator,
    const std::function<std::vector<double>(std::int64_t first, std::int64_t last)>& body);

}  // namespace routescope::analysis
