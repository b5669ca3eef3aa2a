// What the rows of a record say together: do mass and effect agree, which motifs are there, since when, and does
// routing depend on content. Everything is a pure function of the record (or of several runs' records) and the seed.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "analysis/record.h"
#include "analysis/statistics.h"

namespace routescope {

inline constexpr int findings_resamples = 2000;

/// An estimate with its 95 % interval.
struct Estimate {
  double value = std::numeric_limits<double>::quiet_NaN();
  Interval ci{std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::quiet_NaN()};
};

/// Mass against effect over the 18 slices of one row (those that were tested).
struct Dissociation {
  Estimate rank_correlation;  // Spearman, bootstrap over sequences
  int largest_mass = -1;      // slice; -1: none
  int largest_effect = -1;    // slice with the largest delta_nll
  double p_same = 0;          // share of resamples in which the two are the same slice
  std::vector<int> idle;      // slices with at least `appreciable` mass and shown equivalence to zero (Holm, 5 %)
};
inline constexpr double appreciable_mass = 0.1;

/// Slices that are one motif, and its strength over steps. Effects are those of the record's first ablation.
struct Motif {
  std::string name;               // "embedding_early_mlp", ...; or a slice's name
  std::vector<int> slices;        // strength is the sum of their effects
  bool of_paper = false;          // named by the paper; else found: a slice whose excess is above 0 at the last step
  std::vector<Estimate> effect;   // [row] nats a token
  std::vector<Estimate> control;  // [row]
  std::vector<Estimate> excess;   // [row] effect - control
  std::vector<Estimate> mass;     // [row] mean over the slices
  /// Training step of the first row from which on, to the last, the excess is above zero / the mass above what uniform
  /// routing would give it: the lower end of its one-sided 95 % interval. NaN: never. Intervals: bootstrap over
  /// sequences; infinite ends where resamples have no onset.
  Estimate onset, mass_onset;
  Estimate lead;  // ln((onset + 1) / (mass_onset + 1)): below zero the cause comes first
};

/// How much routing depends on content, a row.
struct Content {
  std::vector<double> share;  // [read] of alpha's variance over tokens and routes that lies between tokens of a route
  double mean_share = 0;      // over reads with more than one source
};

struct Findings {
  std::vector<std::int64_t> step;          // [row]
  std::vector<Dissociation> dissociation;  // [row]
  std::vector<Motif> motifs;
  std::vector<Content> content;  // [row]
  int runs = 1;
};

/// Empty motifs and dissociation where the record's sets are not the 18 slices or nothing was ablated.
Findings find(const AnalysisRecord& record);

/// Several runs of one configuration with different seeds, as one: values at the steps that all have, mean over runs;
/// intervals by a bootstrap over runs and, within each, over sequences. Throws Error naming a run whose configuration
/// or measurement is another.
Findings pool(std::span<const AnalysisRecord> records);

}  // namespace routescope
