// Matched controls of a set of routes: other routes that hold as much in the same reads.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "analysis/routes/ablation.h"

namespace routescope::analysis {

/// What a control holds as much of as its set.
enum class Matched { alpha, contribution };

/// One control: routes sorted by read, each at most once.
struct Control {
  std::vector<GatedRoute> routes;
  double weight = 1;  // of its effect in the mean over controls
};

/// The controls of a set.
struct Controls {
  std::vector<Control> draws;  // their weights sum to one
  /// Every control there is, weighted by its chance: their mean has no error of sampling. Else `draws` is a sample.
  bool enumerated = false;
  /// Of the reads that the ablation of the set changes, the share where a control can be other than the set. 0: there
  /// is nothing to compare the set with. NaN for a set that the ablation cannot change.
  double coverage = std::numeric_limits<double>::quiet_NaN();
};

/// As many controls or fewer are all taken, otherwise `count` are drawn.
inline constexpr std::size_t most_enumerated_controls = 2;

/// In each of the set's reads, sources in random order until they hold what the set holds there, the last one in part;
/// the set's own may be among them: the question is whether it matters which sources hold it. `held` [reads, columns]:
/// mean alpha, or mean contribution, over the reference tokens; sources that hold nothing, or less, are not taken. What
/// removes routes (`mask`, `zero`) must leave two sources, or one that is whole: the norm behind a read would restore a
/// single one of which a part is left. A read is as in the set where that leaves no choice, and where the set holds all
/// of it, or nothing. A pure function of the arguments.
Controls make_controls(const model::ReadPlan& plan, Ablation ablation, const RouteSet& set,
                       std::span<const double> held, std::uint64_t seed, int set_index, Matched matched, int count);

}  // namespace routescope::analysis
