// What the rows of a record say together: do mass and effect agree, which motifs are there, since when, and does
// routing depend on content. Everything is a pure function of the record (or of several runs' records) and the seed.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "analysis/record/record.h"
#include "analysis/statistics/statistics.h"

namespace routescope::analysis {

/// Resamples that all findings of a record share: of the sequences, the same for all rows, sets and runs, since all are
/// measured on the same ones; and, of several runs, of their weights (statistics.h, run_weights()).
/// An Estimate's interval are their percentiles, pointwise. With until_decided a set's values are those of the
/// sequences until it was decided; percentiles take their number as given.
inline constexpr int findings_resamples = 2000;

/// Mass against effect over the 18 slices of one row (those that were tested). Mass here is over the reads that the
/// ablation can change: of the others, a read without the slice's sources weighs 0 and one without other sources 1,
/// whatever the model does, so that mass_changed = (mass reads - reads with no other source) / changed reads.
struct Dissociation {
  Estimate rank_correlation;  // Spearman, bootstrap over sequences
  int largest_mass = -1;      // slice; -1: none
  int largest_effect = -1;    // slice with the largest delta_nll
  double p_same = nan;        // share of resamples in which the two are the same slice;
                              // no p value, but how often other sequences would say so
  /// p value of the hypothesis that no slice has a larger effect than the one of the largest mass: t tests, paired over
  /// sequences, against each of the others, the least p value times their number. NaN with until_decided: it holds for
  /// a number of sequences that is fixed beforehand.
  double p_largest = nan;
  std::vector<int> idle;  // slices with at least `appreciable` mass and shown equivalence to zero (Holm, 5 %)
};
inline constexpr double appreciable_mass = 0.1;

/// Slices that are one motif, and its strength over steps. Effects are those of the record's first ablation; slices
/// that it could not test are left out, and a motif of which none was tested is NaN.
struct Motif {
  std::string name;  // "embedding_early_mlp", ...; or a slice's name
  std::vector<int> slices;
  bool of_paper = false;  // named by the paper; else found: a slice whose excess is above 0 at the last row (Holm, 5 %)
  std::vector<Estimate> effect;   // [row] nats a token, sum over the slices
  std::vector<Estimate> control;  // [row] NaN without controls
  std::vector<Estimate> excess;   // [row] effect - control, paired over sequences
  std::vector<Estimate> mass;     // [row] mean over the slices
  double uniform_mass = nan;      // what it is where training starts: queries zero, so
                                  // that only recency_bias tells sources apart
  /// Training step of the first row from which on, to the last, the excess is shown to be above zero: the lower end of
  /// its one-sided 95 % interval is. NaN: never. Rows are taken from the last back to the first that fails, a fixed
  /// order of tests, so that any row too early is claimed with probability 5 % at most, however many rows there are.
  /// More sequences show an effect earlier: it says by when the motif is there, not when it came. NaN with
  /// until_decided, as p_largest.
  double shown_from = nan;
  /// When it came: half rise of the excess and of the mass above uniform_mass (onset.h), where a step to
  /// what they are at the last row fits them best. A fraction of the curve's own scale, so that it does not depend on
  /// the number of sequences. By cause it is of effect minus control, which also shrinks as the control comes to
  /// overlap the set: look at control_overlap beside it. NaN where the last row is not shown to be above
  /// zero (one-sided, 5 %). Resolved to the rows, not between them. Intervals: the same of every resample; an infinite
  /// end where resamples have none.
  Estimate onset, mass_onset;
  Estimate lead;  // ln((onset + 1) / (mass_onset + 1)): below zero the cause comes first
};

/// How much routing depends on content, a row.
struct Content {
  /// [read] of alpha's variance over tokens and sources, the share that lies between tokens for a given source: 0 where
  /// the weights depend on the source alone (or do not vary beyond f32 rounding). NaN for reads with one source.
  std::vector<double> share;
  double mean_share = nan;  // over reads with more than one source
};

struct Findings {
  std::vector<std::int64_t> step;          // [row]
  std::vector<Dissociation> dissociation;  // [row]
  std::vector<Motif> motifs;
  std::vector<Content> content;  // [row]
  int runs = 1;
};

/// Empty motifs and dissociation where the record's sets are not the 18 slices or nothing was ablated. Throws Error
/// naming a row's field that has not the size that the identity says.
Findings find(const AnalysisRecord& record);

/// Several runs of one configuration with different seeds, as one: the rows are the steps that all have; curves are
/// means over runs, and everything else follows from these, except that `idle` holds what is idle in every run, a found
/// slice is one found in every run, and p_largest is the largest of the runs'. Intervals are for the mean over such
/// runs and such sequences: sequences are resampled for all runs at once, and runs weighed so that a mean over them has
/// Student's interval. With 3 runs that is 2.65 to 2.9 standard deviations of the runs to both sides at 64 to 32
/// sequences: wide, but no interval from 3 numbers is narrower and honest; look at the runs themselves beside it.
/// Throws Error naming a run whose configuration or measurement is another, or if no step is common.
Findings pool(std::span<const AnalysisRecord> records);

}  // namespace routescope::analysis
