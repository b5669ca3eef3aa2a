// What sets of routes do alone, kept alone, in pairs and in coalitions (MATH.md, "Routes as edges").
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "analysis/coalitions/coalition.h"
#include "analysis/probe/measure.h"
#include "analysis/results/probe_tokens.h"
#include "kernels/comm/communicator.h"
#include "model/pass/model.h"

namespace routescope::analysis {

struct CoalitionSettings {
  std::uint64_t seed = 1;
  int permutations = 16;  // orders of the slices, each with its reverse, for their Shapley values; 0: none
  /// Above 0: no more orders than it takes for every interval to be at most this share of what ablating every slice
  /// costs wide.
  double until_width = 0;
  double margin = 0.01;  // share of ln(vocabulary) - nll: an effect shown to lie within it counts as none
};

/// What a slice that is shown to do nothing alone does in company. `idle`: it is shown to do nothing beside any other
/// slice either; `redundant`: beside some slice it is shown to do more than the margin; `undecided`: neither is shown;
/// `none`: it is not shown to do nothing alone, or has little free mass, or cannot be changed.
enum class InCompany { none, idle, redundant, undecided };
std::string to_string(InCompany verdict);

inline constexpr int most_permutations = 10'000;

/// Losses are what an ablation adds to the nll, nats a token, by document (or sequence, where these are not known). The
/// ablation is `mean`, which is defined for every coalition: mask cannot empty a read. The final read's routes belong
/// to no slice and stay. Intervals are over documents.
struct CoalitionRow {
  std::int64_t step = 0;
  std::string model_sha256;
  double nll = nan;                          // of the intact model
  double margin = nan;                       // nats a token
  std::vector<double> free_mass;             // [slice] over the reads that the ablation can change
  Estimate all;                              // what ablating every slice adds
  double all_p = nan;                        // one-sided, of nothing; from 0.05 on shares of it are NaN
  std::vector<Estimate> alone;               // [slice] what ablating it adds
  std::vector<Estimate> sufficiency;         // [slice] share of `all` that keeping it alone saves (Fieller's interval)
  std::vector<Estimate> pair;                // [pairs_of(slices)] effect(S u T) - effect(S) - effect(T)
  std::vector<double> pair_p;                // two-sided, of at most the margin, Holm over the pairs
  std::vector<Estimate> player_sufficiency;  // [player]
  std::vector<Estimate> shapley;             // [player] exact: what its absence costs, mean over all orders of leaving
  std::vector<Estimate> slice_shapley;       // [slice] over random orders, a sample too; NaN without any
  int orders = 0;                            // how many, reverses included
  std::vector<InCompany> in_company;         // [slice]
  std::vector<int> partner;                  // [slice] of a redundant one: the slice beside which it does most; else -1
  /// What it all follows from, by sequence: of each slice ablated alone, of each kept alone, of each
  /// pair, and of every coalition of players that is kept. [slice, sequence] and so on.
  std::vector<double> alone_loss, kept_loss, pair_loss, coalition_loss;
  double passes = nan, seconds = nan;  // plain passes over the tokens; on the first rank
};

/// `model` in f32 or f64. Ranks share the sequences. Throws Error for a model without reads, or `mean` without room.
CoalitionRow measure_coalitions(const model::Model& model, const ProbeTokens& tokens, const CoalitionSettings& settings,
                                kernels::Communicator& communicator, std::size_t batch_bytes = default_batch_bytes);

struct Company {
  std::vector<InCompany> verdict;  // [slice]
  std::vector<int> partner;        // [slice] of a redundant one: the slice beside which it does most; else -1
};
/// The verdicts on the slices in `asked`, from losses by document: alone [slice][document], pairs [pair][document]. A
/// slice does nothing alone where more than idle_share of documents have an effect within the margin, by an exact
/// binomial test, and the mean passes the equivalence test; it is idle if so does effect(S u T) - effect(T) for every
/// other T: the p value is the largest of all these tests (intersection-union). It is redundant if it does nothing
/// alone and effect(S u T) - effect(T) is above the margin for some T: the p value is the larger of that of nothing
/// alone and the least one over T, adjusted by Holm over T. Each kind of p value is adjusted by Holm over `asked`.
Company in_company(const std::vector<std::size_t>& asked, const std::vector<std::vector<double>>& alone,
                   const std::vector<std::vector<double>>& pairs, double margin);

}  // namespace routescope::analysis
