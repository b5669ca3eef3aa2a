// How far two circuits are the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "analysis/statistics/statistics.h"

namespace routescope::analysis {

/// Of two sets of the same edges.
struct Overlap {
  std::size_t shared = 0;
  double jaccard = nan;    // shared / in either; NaN where both are empty
  double by_chance = nan;  // what random sets of these sizes have on average
  double p = nan;          // that random sets of these sizes share as many or more (hypergeometric, exact)
};
/// a, b [edge] 1: in the set. Throws std::invalid_argument if they are of different lengths.
Overlap overlap_of(std::span<const std::uint8_t> a, std::span<const std::uint8_t> b);

/// How many edges all sets have, and how many random sets of these sizes would have on average.
struct Common {
  std::vector<std::size_t> edges;  // ascending
  double by_chance = nan;
};
Common common_edges(std::span<const std::vector<std::uint8_t>> sets);

}  // namespace routescope::analysis
