// Does the mass of a slice tell its effect?
#pragma once

#include <array>
#include <string>
#include <vector>

#include "analysis/findings/motifs.h"
#include "analysis/statistics/concordance.h"
#include "analysis/statistics/statistics.h"

namespace routescope::analysis {

/// Which mass: weight, or contribution (MATH.md, "Routes as edges").
enum class MassKind { alpha, contribution };
inline constexpr std::array<MassKind, 2> mass_kinds{MassKind::alpha, MassKind::contribution};
std::string to_string(MassKind kind);

/// The heaviest against the strongest among the items of one sublayer kind: its slices, or its families of sources.
/// The mass of a family is the mean over the reads of all depths, its effect the sum of those of its slices, each
/// ablated alone.
struct Contest {
  int heaviest = -1, strongest = -1;  // a slice, or a family (model::Family); -1: none
  /// p value of the hypothesis that nothing has an effect which is larger than the heaviest item's by more than the
  /// margin, and is so by more than the margin more than at step 0. The heaviest may be any item: each has to be shown
  /// to be lighter than the heaviest observed one by more than `near_tie`, or to be beaten (intersection-union test,
  /// two tests an item), so that the verdict does not hang on which of two equals is ahead. One-sided tests paired over
  /// documents, Bonferroni over the items. 1 where the model is not shown to have learned (Learned::p); NaN without a
  /// row of step 0, or with until_decided.
  double p = nan;
  double p_adjusted = nan;  // Holm, over the contests of the row
  double p_alone = nan;     // adjusted likewise; without regard to step 0 and to what was learned

  bool differ() const { return heaviest != strongest && p_adjusted < significance; }
};
inline constexpr double near_tie = 0.02;

/// One contest for each sublayer kind (attn, mlp), items (slices, families) and mass, the last running fastest.
struct ContestName {
  std::size_t sublayer = 0;  // 0: attn, 1: mlp
  bool families = false;
  MassKind mass = MassKind::alpha;
};
inline constexpr std::size_t num_contests = 8;
ContestName contest_name(std::size_t contest);
/// "attn.slices.alpha"
std::string to_string(const ContestName& name);

/// What one mass says about effects. The free mass of a slice is its mean over the reads that the ablation can change:
/// in the other reads it is 0 (the read has none of the slice's sources) or 1 (it has no other source), whatever the
/// model does. Hence free mass = (mass * reads - reads with no other source) / changed reads.
struct MassAgainstEffect {
  std::vector<double> free_mass;  // [slice]; mean over runs; NaN: not tested
  double rank_correlation = nan;  // Spearman, over the tested slices
  Concordance over;               // Kendall, over all pairs of tested slices
  /// Over pairs of one sublayer kind and depth only: their reads are the same, and the families share one unit of mass.
  Concordance within;
  /// Over pairs of routes of one read, of those that the atlas really masked; no interval. NaN for fewer than
  /// `least_pairs` pairs.
  Concordance within_reads;
  /// Slices with a free mass of `appreciable_mass` or more, in every run, whose effect is shown in every run to lie
  /// within the margin in more than `idle_share` of documents (exact binomial test, Holm over the tested slices). Their
  /// mean passes the equivalence test as well, which says nothing of rare documents that were not drawn.
  std::vector<int> idle;
};
inline constexpr double appreciable_mass = 0.1;
inline constexpr double idle_share = 0.8;
inline constexpr std::int64_t least_pairs = 10;

/// Mass against effect over those of the 18 slices that were tested, at one row.
struct Dissociation {
  std::array<MassAgainstEffect, mass_kinds.size()> mass;  // [kind]
  int largest_effect = -1;                                // slice with the largest delta_nll; -1: none
  int largest_mass = -1;                                  // slice with the largest free alpha mass
  std::array<Contest, num_contests> contests;

  const MassAgainstEffect& of(MassKind kind) const { return mass[static_cast<std::size_t>(kind)]; }
};

Dissociation dissociation_of(const Basis& basis, std::size_t row, std::uint64_t seed);

}  // namespace routescope::analysis
