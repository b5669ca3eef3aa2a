// Findings from all rows of a record: what the model has learned, whether mass
// and effect agree, which motifs there are and since when, and whether
// routing depends on content. They are a pure function of the record (or of the records of several runs) and the seed.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "analysis/findings/dissociation.h"
#include "analysis/findings/motifs.h"
#include "analysis/findings/parts.h"
#include "analysis/results/analysis_record.h"

namespace routescope::analysis {

/// The number of resamples that all findings share. Documents are resampled alike for all rows, sets and runs, because
/// all are measured on the same sequences; of several runs also the weights are drawn (statistics.h, run_weights()).
/// Intervals are percentiles of the resamples, pointwise; those of curves over several runs come from both sources of
/// error instead (two_way.h). With until_decided the values of a set end where it was decided, and percentiles take
/// their number as given.
inline constexpr int findings_resamples = 2000;

/// How much routing depends on content, at one row.
struct Content {
  /// [read] the share of alpha's variance over tokens and sources that lies between tokens for a given source. 0 if the
  /// weights depend on the source alone (or vary by f32 rounding only). NaN for reads with one source.
  std::vector<double> share;
  double mean_share = nan;  // over reads with more than one source
};

struct Findings {
  std::vector<std::int64_t> step;          // [row]
  std::vector<Learned> learned;            // [row]
  std::vector<Dissociation> dissociation;  // [row]
  std::vector<Motif> motifs;
  std::vector<Content> content;                            // [row]
  std::vector<std::vector<PartInteraction>> interactions;  // [row]; empty with until_decided
  int runs = 1;
};

/// Empty motifs and dissociation where the record's sets are not the 18 slices or nothing was ablated. Throws Error
/// naming a field of a row that has another size than the identity says.
Findings find(const AnalysisRecord& record);

/// Findings of several runs of one configuration with different seeds. Rows are the steps that all runs have. Curves
/// are means over runs, and all other findings follow from the curves, but a slice is idle if it is idle in every run.
/// Intervals and tests are for the mean over such runs and such documents. With 3 runs they are wide, but a narrower
/// interval from 3 numbers would be wrong; look also at the runs themselves.
/// Throws Error naming a run whose configuration or measurement is another, or if no step is common.
Findings pool(std::span<const AnalysisRecord> records);

}  // namespace routescope::analysis
