// Quantities of one row as they were observed, by run and document, and one-sided tests of their means.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "analysis/findings/resampled.h"

namespace routescope::analysis {

/// A quantity by run and document.
struct Observed {
  std::vector<std::vector<double>> values;  // [run][document] document_values()

  double mean() const;
  /// The mean with its 95 % interval: over documents, and over runs if there are several (two_way.h).
  Estimate estimate() const;
  /// One-sided p value of the hypothesis that the mean is at most `threshold`: for one run p_above(), for several the
  /// level at which the interval of estimate() reaches the threshold, but at least p_above() of the documents' means
  /// over runs, which is corrected for skewness. NaN if anything is.
  double p_above(double threshold = 0) const;
};

/// quantity(run's row, sequence) over all runs at `row`.
template <class Quantity>
Observed observe(std::span<const Rows> runs, std::size_t row, std::size_t sequences,
                 std::span<const std::int64_t> documents, const Quantity& quantity);

/// a - b, paired by run and document.
Observed difference(Observed a, const Observed& b);

// ---- implementation of the template ----

/// document_values().
std::vector<double> by_document(std::span<const double> by_sequence, std::span<const std::int64_t> documents);

template <class Quantity>
Observed observe(std::span<const Rows> runs, std::size_t row, std::size_t sequences,
                 std::span<const std::int64_t> documents, const Quantity& quantity) {
  Observed out;
  std::vector<double> by_sequence(sequences);
  for (const Rows& run : runs) {
    for (std::size_t i = 0; i < sequences; ++i) by_sequence[i] = quantity(run, row, i);
    out.values.push_back(by_document(by_sequence, documents));
  }
  return out;
}

}  // namespace routescope::analysis
