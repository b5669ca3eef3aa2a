// Ablations of a set of routes (MATH.md, "Ablations") as changes of a forward pass.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "analysis/routes/route_sets.h"
#include "kernels/memory.h"
#include "model/pass/intervention.h"
#include "model/pass/model.h"

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
enum class Ablation { mask, zero, mean, resample, freeze, patch };

std::string to_string(Ablation ablation);
/// Throws UsageError naming the known ablations.
Ablation ablation_from_string(const std::string& text);
/// One sentence, for the attribute `intervention` of files.
std::string describe(Ablation ablation);
/// A few words, for help texts.
std::string describe_briefly(Ablation ablation);
/// In the order of the enumeration. Only `patch` needs aligned sequences.
std::vector<Ablation> all_ablations();

/// One route, and the share of it that is ablated, in (0, 1]. A share g of `mask` multiplies exp(logit) by 1 - g; a
/// share g of another ablation mixes the new term (g) with the old term (1 - g).
struct GatedRoute {
  int read = 0, column = 0;
  double share = 1;
};

/// The means that `mean` and `freeze` use: over all probed tokens, under the intact model.
struct Reference {
  std::vector<double> alpha_mean;                // [reads, columns]
  std::vector<double> contribution_mean;         // [reads, columns] ProbeRow; NaN for a column that a read lacks
  std::vector<std::vector<double>> source_mean;  // [read of the plan][d]: of the read's partial, its current source
};

/// The sequences of a pass, as far as ablations need them.
struct BatchPlace {
  std::int64_t first_sequence = 0, sequences = 0, positions = 0;
  std::uint64_t seed = 1;  // of `resample`
  /// `patch`: alpha [tokens, n+1] of each routed read on the aligned sequences; empty otherwise. These sequences begin
  /// at its token `donor_begin`.
  std::span<const std::vector<double>> donor_alpha;
  std::int64_t donor_begin = 0;
};

/// `resample`: the position, of `positions` >= 2, of another token of the sequence, uniform over them: a function of
/// the seed and the token's own place, the same for all reads and ablations.
std::int64_t resample_donor(std::uint64_t seed, std::int64_t sequence, std::int64_t position, std::int64_t positions);

/// The reads, ascending, that an ablation of these routes can change. `mask` cannot change a read if it would leave no
/// source of it; `resample`, `freeze` and `patch` cannot change a read with a single source, whose weight is 1 for
/// every token.
std::vector<int> changed_reads(const model::ReadPlan& plan, Ablation ablation, std::span<const GatedRoute> routes);
/// The share of a set's reads that the ablation can change. NaN for a set without reads.
double coverage(const model::ReadPlan& plan, Ablation ablation, const RouteSet& set);
/// Every route of a set, with share 1.
std::vector<GatedRoute> whole(const RouteSet& set);

/// The most completed sources and means together of one read on CUDA (kernels/cuda/reads/read.h).
inline constexpr std::size_t most_cuda_sources = 128;
/// `mean` gives a read one further source for each of its routes among `routes`: their weights differ from token to
/// token, so that one sum of their means cannot replace them. CUDA limits the number of sources (a read of a model with
/// 33 or more layers and a source for each sublayer may need more). Throws Error naming the set, the ablation and the
/// first read with too many.
void expect_room_for_means(const model::ReadPlan& plan, kernels::Device device, Ablation ablation,
                           const std::string& set, std::span<const GatedRoute> routes);

/// An intervention ready for Pass::forward(), with the tensors that it refers to.
struct PreparedAblation {
  model::RoutingIntervention intervention;
  std::vector<kernels::OwnedTensor> owned;
  std::vector<int> changed_reads;
};
/// Routes are sorted by read, each at most once. Throws std::invalid_argument if the reference or the donors that the
/// ablation needs are missing.
PreparedAblation prepare_ablation(const model::Model& model, Ablation ablation, std::span<const GatedRoute> routes,
                                  const Reference& reference, const BatchPlace& place);

}  // namespace routescope::analysis
