#include "analysis/circuits/overlap.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

namespace routescope::analysis {
namespace {

double log_choose(double n, double k) {
  return std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1);
}

double size_of(std::span<const std::uint8_t> set) {
  return static_cast<double>(std::count(set.begin(), set.end(), std::uint8_t{1}));
}

}  // namespace

Overlap overlap_of(std::span<const std::uint8_t> a, std::span<const std::uint8_t> b) {
  if (a.size() != b.size()) throw std::invalid_argument("overlap_of: sets of different edges");
  Overlap out;
  for (std::size_t e = 0; e < a.size(); ++e) out.shared += a[e] && b[e] ? 1 : 0;
  const double edges = static_cast<double>(a.size()), in_a = size_of(a), in_b = size_of(b);
  const auto jaccard = [&](double shared) { return shared / (in_a + in_b - shared); };
  if (in_a + in_b == 0) return out;
  out.jaccard = jaccard(static_cast<double>(out.shared));
  out.by_chance = out.p = 0;
  for (double shared = std::max(0.0, in_a + in_b - edges); shared <= std::min(in_a, in_b); ++shared) {
    const double chance =
        std::exp(log_choose(in_a, shared) + log_choose(edges - in_a, in_b - shared) - log_choose(edges, in_b));
    out.by_chance += chance * jaccard(shared);
    if (shared >= static_cast<double>(out.shared)) out.p += chance;
  }
  out.p = std::min(1.0, out.p);
  return out;
}

Common common_edges(std::span<const std::vector<std::uint8_t>> sets) {
  Common out;
  if (sets.empty()) return out;
  out.by_chance = static_cast<double>(sets.front().size());
  for (const std::vector<std::uint8_t>& set : sets) out.by_chance *= size_of(set) / static_cast<double>(set.size());
  for (std::size_t e = 0; e < sets.front().size(); ++e)
    if (std::all_of(sets.begin(), sets.end(), [e](const auto& set) { return set[e] != 0; })) out.edges.push_back(e);
  return out;
}

}  // namespace routescope::analysis
