// Do two orders of the same items agree? Kendall's tau, with an interval that knows which orders are known.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "analysis/statistics/random.h"
#include "analysis/statistics/statistics.h"

namespace routescope::analysis {

/// Kendall's tau-a: (concordant pairs - discordant pairs) / pairs, of items by their means.
struct Concordance {
  double tau = nan;
  /// 95 %, of the tau of the true means. The order of a pair counts as known where a paired test shows it for both a
  /// and b (p_above() in both directions, at 5 % / number of tests, two tests a pair: Bonferroni), so that with 95 %
  /// all known orders are right at once. Unknown pairs may be either: with C known to be concordant and D discordant,
  /// of N, the interval is (2 C - N) / N to (N - 2 D) / N. It never hides a true tau of 1 by noise, but it is wide: a
  /// percentile interval is not, and misses.
  Interval ci{nan, nan};
  /// Two-sided p value of no association: b's items are permuted within groups. Exact without ties (but not below
  /// 1e-12), else from `permutations` random ones and the observed. It takes the means as they are: where a and b of
  /// one item share noise, their association counts as one.
  double p = nan;
  std::int64_t pairs = 0;  // N
};
inline constexpr int permutations = 9999;

/// Over all pairs of items of the same group. a, b [item][unit]: the values of each item on the same independent units
/// (documents); groups [item], empty if all are of one. Items with a value that is not finite are left out. NaN without
/// a pair; no interval with fewer than two units. Throws std::invalid_argument if sizes differ. A pure function of the
/// data and the key.
Concordance concordance(const std::vector<std::vector<double>>& a, const std::vector<std::vector<double>>& b,
                        std::span<const std::int64_t> groups, const RandomKey& key);

}  // namespace routescope::analysis
