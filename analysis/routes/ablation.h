// Ablations of a set of routes (MATH.md, "Ablations"): what there is, and what they can change.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "analysis/routes/route_sets.h"
#include "model/pass/reads.h"

namespace routescope::analysis {

/// `mask` takes the routes out of the softmax, which gives their weight to the rest of the read. The other ablations
/// change only the routes' own terms alpha_i v_i of h = sum_i alpha_i v_i, where alpha are the weights that the ablated
/// model computes. In place of a term they put:
///   zero      0
///   mean      alpha_i mean(v_i)       the source's mean over the reference tokens (expect_room_for_means())
///   resample  alpha_i' v_i            of another token of the same sequence, drawn uniformly
///   freeze    mean(alpha_i) v_i       over the reference tokens
///   patch     alpha_i' v_i            of the same position of another, aligned sequence under the intact model
/// Only `mask` renormalises: under the others the weights of a read need not sum to one. The RMSNorm that follows a
/// read depends only on the direction of h (up to its eps), so that `mask` and `zero` differ only where little or
/// nothing is left of h.
///
/// A source acts on a read as a key, through its logit, and as a value (MATH.md, "Routes as edges"). `mean` is of the
/// value. The others, NAME_PART, put another v_i in the place of one part, or of both: its mean (mean), that of another
/// token of the same sequence (resample), that of the same position of another text under the intact model (patch).
enum class Ablation {
  mask,
  zero,
  mean,
  resample,
  freeze,
  patch,
  mean_key,
  mean_both,
  resample_value,
  resample_key,
  resample_both,
  patch_value,
  patch_key,
  patch_both,
};

/// What an ablation puts another value in the place of: the weight of a route, or its source as a value, as a key, or
/// both.
enum class Part { weight, value, key, both };
/// Where that comes from. `none`: nowhere (mask, zero).
enum class Donor { none, mean, position, text };

Part part_of(Ablation ablation);
Donor donor_of(Ablation ablation);
bool changes_values(Ablation ablation);  // Part::value, both
bool changes_keys(Ablation ablation);    // Part::key, both
/// The ablation of the same donor and another part; throws UsageError where there is none.
Ablation with_part(Ablation ablation, Part part);
/// Throws UsageError naming the known parts: value, key, both.
Part part_from_string(const std::string& text);

std::string to_string(Ablation ablation);
/// Throws UsageError naming the known ablations.
Ablation ablation_from_string(const std::string& text);
/// One sentence, for the attribute `intervention` of files.
std::string describe(Ablation ablation);
/// A few words, for help texts.
std::string describe_briefly(Ablation ablation);
/// In the order of the enumeration.
std::vector<Ablation> all_ablations();
/// Of these, those that are not named after a part.
std::vector<Ablation> whole_ablations();

/// One route, and the share of it that is ablated, in (0, 1]. A share g of `mask` multiplies exp(logit) by 1 - g; a
/// share g of another ablation mixes the new term (g) with the old term (1 - g).
struct GatedRoute {
  int read = 0, column = 0;
  double share = 1;
};

/// Routes, sorted by read, of one read at a time: body(read, its routes).
template <class Body>
void for_each_read(std::span<const GatedRoute> routes, const Body& body) {
  for (std::size_t begin = 0; begin < routes.size();) {
    std::size_t end = begin;
    while (end < routes.size() && routes[end].read == routes[begin].read) ++end;
    body(routes[begin].read, routes.subspan(begin, end - begin));
    begin = end;
  }
}

/// The reads, ascending, that an ablation of these routes can change. `mask` cannot change a read if it would leave no
/// source of it; what changes weights or keys alone cannot change a read with a single source, whose weight is 1 for
/// every token.
std::vector<int> changed_reads(const model::ReadPlan& plan, Ablation ablation, std::span<const GatedRoute> routes);
/// The share of a set's reads that the ablation can change. NaN for a set without reads.
double coverage(const model::ReadPlan& plan, Ablation ablation, const RouteSet& set);
/// Every route of a set, with share 1.
std::vector<GatedRoute> whole(const RouteSet& set);

}  // namespace routescope::analysis
