// The 18 slices that probes and records speak of: family x sublayer kind x depth, as sets of routes of a ReadPlan.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "model/model.h"
#include "model/reads.h"

namespace routescope {

inline constexpr int num_slices = 18;

/// A route is one (read, column) of a plan: one source as one sublayer sees it. The slices partition all routes except
/// those of the final read, whose sublayer is neither attention nor MLP.
struct Slice {
  Family family = Family::embedding;
  Sublayer sublayer = Sublayer::attn;
  Depth depth = Depth::early;
  std::vector<int> reads;                   // every routed read of this kind and depth, also where it lacks the family
  std::vector<std::pair<int, int>> routes;  // (read, column) of the family in those reads, by read

  /// "embedding.mlp.early"
  std::string name() const;
};

/// The slices of a plan in their fixed order: family, then sublayer, then depth, the last running fastest.
std::vector<Slice> make_slices(const ReadPlan& plan);

/// The mass of every slice: the mean, over all reads of the slice and all tokens, of the weight that a read puts on the
/// family. A read without a source of the family weighs 0, so that the masses of the three families sum to one for each
/// sublayer kind and depth. NaN for a slice without reads. alpha_mean [reads, columns]: each route's mean over the
/// tokens; entries of columns that a read lacks are not looked at.
std::vector<double> slice_masses(std::span<const Slice> slices, std::span<const double> alpha_mean, int columns);

/// What the `mask` ablation of a slice does.
struct SliceMask {
  RoutingIntervention intervention;  // -inf on the slice's routes, in the reads that keep at least one source
  std::vector<int> masked_reads;     // the reads that it changes, ascending
  /// Share of the slice's reads that the ablation could change (it is the same for every token): a read counts against
  /// it when it has no source of the family, or no source but of the family. NaN for a slice without reads.
  double coverage = 0;
};
SliceMask mask_slice(const ReadPlan& plan, const Slice& slice);

}  // namespace routescope
