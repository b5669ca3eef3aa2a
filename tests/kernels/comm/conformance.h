// What every communicator does, whatever it is made of: properties that all ranks check together.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kernels/comm/communicator.h"

namespace routescope::testing {

/// Ranks that run the same cases in the same order.
struct Ranks {
  kernels::Communicator& communicator;
  kernels::Device device;  // of tensors
  bool sums_in_rank_order;
};

struct ConformanceCase {
  std::string name;
  std::function<void(const Ranks&)> run;  // with GoogleTest's expectations
};
const std::vector<ConformanceCase>& conformance_cases();

}  // namespace routescope::testing
