// How many random orders of players Shapley values need: looks at a growing sample, whose intervals hold at all looks
// together.
#pragma once

#include <cstddef>
#include <vector>

#include "analysis/statistics/statistics.h"

namespace routescope::analysis {

/// What pairs of orders (an order and its reverse) say of each player: [player][pair of orders][document], the mean
/// gain of its joining.
using OrderSample = std::vector<std::vector<std::vector<double>>>;

/// Numbers of pairs of orders after which to look: 4, 8, 16, ... and `most`; `most` alone if the number is fixed.
std::vector<int> order_looks(int most, bool until_narrow);

/// The mean of each player over the first `pairs` of pairs of orders and over documents, both samples (TwoWay). Its
/// interval holds at 95 % at all of `looks` looks together: each has the level 1 - 5 % / looks (Bonferroni), so that
/// when to stop may depend on what is seen.
std::vector<Estimate> at_look(const OrderSample& sample, std::size_t pairs, std::size_t looks);

/// Whether every interval is at most this wide, from its lower to its upper bound.
bool narrow(const std::vector<Estimate>& estimates, double width);

}  // namespace routescope::analysis
