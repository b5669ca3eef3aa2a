#include "analysis/coalitions/order_sample.h"

#include <algorithm>

#include "analysis/statistics/two_way.h"

namespace routescope::analysis {

std::vector<int> order_looks(int most, bool until_narrow) {
  constexpr int first = 4;
  std::vector<int> looks;
  for (int pairs = first; until_narrow && pairs < most; pairs *= 2) looks.push_back(pairs);
  if (most > 0) looks.push_back(most);
  return looks;
}

std::vector<Estimate> at_look(const OrderSample& sample, std::size_t pairs, std::size_t looks) {
  std::vector<Estimate> out;
  for (const auto& player : sample) {
    const TwoWay both({player.begin(), player.begin() + static_cast<std::ptrdiff_t>(pairs)});
    const double half = both.half_width(1 - (1 - interval_level) / static_cast<double>(looks));
    out.push_back({both.mean, {both.mean - half, both.mean + half}});
  }
  return out;
}

bool narrow(const std::vector<Estimate>& estimates, double width) {
  return std::ranges::all_of(estimates, [&](const Estimate& one) { return one.ci.upper - one.ci.lower <= width; });
}

}  // namespace routescope::analysis
