// How ranks share the sequences that are measured.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/comm/communicator.h"

namespace routescope::analysis {

/// Every rank measures a run of the sequences [begin, end), maybe none: body(first, last) returns their numbers, one
/// sequence after another, as many for each. Returns those of all, [sequence], on all ranks. An error of one rank is
/// one of all (agree()); `body` calls no collectives. `what` names the collective.
std::vector<std::vector<double>> share_sequences(
    std::int64_t begin, std::int64_t end, const std::string& what, kernels::Communicator& communicator,
    const std::function<std::vector<double>(std::int64_t first, std::int64_t last)>& body);

}  // namespace routescope::analysis
