// What is done to a set of routes, and how much of it: the ablations of MATH.md as changes of a forward pass.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "analysis/slices.h"
#include "kernels/memory.h"
#include "model/model.h"

namespace routescope {

/// `mask` takes the routes out of the softmax, which hands their weight to the rest of the read. All others change the
/// routes' own terms alpha_i v_i of h = sum_i alpha_i v_i and nothing else, given the weights alpha that the ablated
/// model computes:
///   zero      0
///   mean      alpha_i mean(v_i)       the source's mean over the reference tokens
///   resample  alpha_i' v_i            of another token of the same sequence, drawn uniformly
///   freeze    mean(alpha_i) v_i       over the reference tokens
///   patch     alpha_i' v_i            of the same position of another, aligned sequence under the intact model
/// Only `mask` renormalises: a read's weights under the others need not sum to one.
enum class Ablation { mask, zero, mean, resample, freeze, patch };

std::string to_string(Ablation ablation);
/// Throws UsageError naming the known ones.
Ablation ablation_from_string(const std::string& text);
/// One sentence, for the attribute `intervention` of files.
std::string describe(Ablation ablation);

/// Routes under a name: a slice, or whatever a study asks for.
struct RouteSet {
  std::string name;                         // "embedding.mlp.early", "3.attn:block_2", "2.attn-5.mlp:history"
  std::vector<int> reads;                   // the reads that it speaks of, also those that have none of its sources
  std::vector<std::pair<int, int>> routes;  // (read, column), by read

  bool operator==(const RouteSet&) const = default;
};

/// The 18 slices as sets.
std::vector<RouteSet> slice_sets(const ReadPlan& plan);
/// `READS[:SOURCES]`, or a slice's name. READS: `3.attn`, a range `2.attn-5.mlp` (both included, in the order of the
/// model), `attn`, `mlp` or `all`; SOURCES: columns and families, separated by commas; all of them without. Throws
/// UsageError naming what is unknown and what there is.
RouteSet parse_route_set(const std::string& text, const ReadPlan& plan);

/// A share in (0, 1] of one route: 1 is the whole ablation. The share g of `mask` multiplies exp(logit) by 1 - g; of
/// the others it mixes the changed term (g) with the term as it was (1 - g).
struct GatedRoute {
  int read = 0, column = 0;
  double share = 1;
};

/// What `mean` and `freeze` put in place, over all tokens that are probed, under the intact model.
struct Reference {
  std::vector<double> alpha_mean;                // [reads, columns]
  std::vector<std::vector<double>> source_mean;  // [read of the plan][d]: of the read's partial, its current source
};

/// What the ablations need of the sequences in a pass.
struct BatchPlace {
  std::int64_t first_sequence = 0, sequences = 0, positions = 0;
  std::uint64_t seed = 1;  // of `resample`: a token's donor is a function of this, its sequence and its position
  /// `patch`: alpha [tokens, n+1] of each routed read on the aligned sequences; empty otherwise.
  std::span<const std::vector<double>> donor_alpha;
};

/// An intervention ready for Pass::forward(), with what it owns.
struct PreparedAblation {
  RoutingIntervention intervention;
  std::vector<OwnedTensor> owned;
  std::vector<int> changed_reads;  // ascending
  /// Share of the set's reads that are changed: a read counts against it when it has no source of the set; and, for
  /// `mask`, when it would keep none. NaN for a set without reads.
  double coverage = 0;
};
PreparedAblation prepare_ablation(const Model& model, Ablation ablation, std::span<const GatedRoute> routes,
                                  std::span<const int> reads, const Reference& reference, const BatchPlace& place);

/// A mass-matched control of a set: in each of its reads, sources in random order (its own among them: the family's
/// name is what is at stake, not its weight) until they hold the mass, on average over the reference tokens, that the
/// set holds there; the last one taken in part. A pure function of the seed, the draw and the set.
std::vector<GatedRoute> draw_control(const ReadPlan& plan, const RouteSet& set, std::span<const double> alpha_mean,
                                     std::uint64_t seed, int set_index, int draw);

}  // namespace routescope
