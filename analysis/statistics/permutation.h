// Random orders.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace routescope::analysis {

/// 0 to n - 1 in a random order (Fisher and Yates): a function of the seed and of the stream of Philox, which nothing
/// else should draw from. The first k of them are k draws without replacement.
std::vector<std::size_t> random_permutation(std::size_t n, std::uint64_t seed, std::uint64_t stream);

}  // namespace routescope::analysis
