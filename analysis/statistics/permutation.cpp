#include "analysis/statistics/permutation.h"

#include <numeric>
#include <utility>

#include "kernels/random.h"

namespace routescope::analysis {

std::vector<std::size_t> random_permutation(std::size_t n, std::uint64_t seed, std::uint64_t stream) {
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  for (std::size_t i = 0; i + 1 < n; ++i) {
    const std::uint64_t word = kernels::random_words(seed, stream, i).word[0];
    std::swap(order[i], order[i + ((word * (n - i)) >> 32)]);
  }
  return order;
}

}  // namespace routescope::analysis
