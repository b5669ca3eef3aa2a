// Named sets of routes: probes ablate them and measure their mass.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "analysis/routes/slices.h"
#include "model/pass/reads.h"

namespace routescope::analysis {

/// A slice, or other routes that a study names.
struct RouteSet {
  std::string name;                         // "embedding.mlp.early", "3.attn:block_2", "2.attn-5.mlp:history"
  std::vector<int> reads;                   // all its reads, also those without any of its sources
  std::vector<std::pair<int, int>> routes;  // (read, column), by read

  bool operator==(const RouteSet&) const = default;
};

/// Throws Error for a model without reads.
void expect_reads(const model::ReadPlan& plan);
/// The 18 slices as sets.
std::vector<RouteSet> slice_sets(const model::ReadPlan& plan);
/// `READS[:SOURCES]`, or a slice's name. READS: one read (`3.attn`, `final`), a range `2.attn-5.mlp` (both included, in
/// the order of the model), `attn`, `mlp`, one depth of either (`attn.late`), or `all`; SOURCES: columns, families,
/// `newest` (of a read's history the source that was completed last) and `older` (the rest of it), separated by commas;
/// without SOURCES, all columns. Throws UsageError naming what is unknown and what there is, or that none of the reads
/// has such a source; Error for a model without reads.
RouteSet parse_route_set(const std::string& text, const model::ReadPlan& plan);
/// The set of each name; `routes` stands for a set of each single route (`3.attn:block_1`), without names it is the 18
/// slices. Throws UsageError for a name that comes twice and for two names of the same routes, and as
/// parse_route_set().
std::vector<RouteSet> route_sets(std::span<const std::string> names, const model::ReadPlan& plan);

/// The mass of every set: the mean, over all its reads and all tokens, of the weight on its routes. A read without a
/// source of the set weighs 0, so that the masses of the three families sum to one for each sublayer kind and depth.
/// NaN for a set without reads. alpha_mean [reads, columns]: each route's mean over the tokens; entries of columns that
/// a read lacks are ignored.
std::vector<double> set_masses(std::span<const RouteSet> sets, std::span<const double> alpha_mean, int columns);

}  // namespace routescope::analysis
