// Coalitions of sets of routes (MATH.md, "Routes as edges"): alone, kept alone, in pairs, and their Shapley values.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "analysis/routes/route_sets.h"
#include "analysis/statistics/statistics.h"

namespace routescope::analysis {

/// Players of the exact game: a family's routes into one sublayer kind, at every depth. "embedding.attn", ...
inline constexpr std::size_t num_players = 6;
std::string player_name(std::size_t player);
/// The player that a slice belongs to.
std::size_t player_of(std::size_t slice);

/// A coalition of n players is a set of bits: bit i is player i.
using Coalition = std::uint32_t;

/// The Shapley values of a game (Shapley 1953): player i's mean gain over all orders in which players can join,
/// sum over S without i of |S|! (n - |S| - 1)! / n! (v(S + i) - v(S)). v [2^n], by coalition. They sum to v(all) -
/// v(none).
std::vector<double> shapley_values(std::span<const double> v);

/// What one order of players adds, one after the other: [n] of player i when it joins. `along` [n + 1]: v of the first
/// 0, 1, ..., n of them.
std::vector<double> marginals(std::span<const std::size_t> order, std::span<const double> along);

/// The pairs (a, b), a < b, of n sets, in order.
std::vector<std::pair<std::size_t, std::size_t>> pairs_of(std::size_t n);

}  // namespace routescope::analysis
