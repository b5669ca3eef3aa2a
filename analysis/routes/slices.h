// The 18 slices: family x sublayer kind x depth, as sets of routes of a ReadPlan.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "model/pass/reads.h"

namespace routescope::analysis {

inline constexpr int num_slices = 18;

/// A route is one (read, column) of a plan: one source as one sublayer sees it. The slices partition all routes except
/// those of the final read, whose sublayer is neither attention nor MLP.
struct Slice {
  model::Family family = model::Family::embedding;
  model::Sublayer sublayer = model::Sublayer::attn;
  model::Depth depth = model::Depth::early;
  std::vector<int> reads;                   // every routed read of this kind and depth, also one without such a source
  std::vector<std::pair<int, int>> routes;  // (read, column) of the family in those reads, by read

  /// "embedding.mlp.early"
  std::string name() const;
};

/// "embedding.mlp.early" for the slices in their fixed order.
std::string slice_name(std::size_t slice);

/// The slices of a plan in their fixed order: family, then sublayer, then depth, the last running fastest.
std::vector<Slice> make_slices(const model::ReadPlan& plan);

}  // namespace routescope::analysis
