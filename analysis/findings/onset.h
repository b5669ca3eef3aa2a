// Since when: the steps at which a curve is shown to be above zero, and has risen half way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "analysis/statistics/statistics.h"

namespace routescope::analysis {

/// A curve over rows and its values on resamples of sequences.
struct Strength {
  std::vector<double> value;                   // [row]
  std::vector<std::vector<double>> resampled;  // [row][resample]
  std::vector<std::size_t> sequences;          // [row] that it is of, which set the width of intervals

  std::vector<Estimate> estimates() const;
  /// One-sided, at 95 %.
  bool shown_above_zero(std::size_t row) const;
};

/// Step of the first row from which on, to the last, the curve is shown to be above zero; NaN: not even at the last.
/// Rows are tested from the last back to the first that fails: a fixed order, so that the chance of a row at which the
/// curve is not above zero being claimed is 5 % at most, however many rows there are.
double shown_from(const Strength& strength, std::span<const std::int64_t> steps);

/// Half rise: step of the row from which on the curve stays above half of its last value, up to the noise. It is the
/// row where a step from 0 to the last value, fitted to the curve by least squares, rises: the one with the largest
/// sum, over itself and all later rows, of curve - last / 2. The curve is clipped to [0, last] first, so that an
/// overshoot counts no more than a dip. For a curve that crosses once this is the first row above; where noise crosses
/// often, the first row from which on *every* row is above would be late, and the later the more rows there are. Here
/// and on every resample: infinite on those whose last value is not above zero. Not `shown`, without value, if the last
/// row is not shown to be.
struct Onset {
  bool shown = false;
  double value = nan;
  std::vector<double> resampled;
  std::size_t sequences = 0;  // of the row with the fewest

  Onset(const Strength& strength, std::span<const std::int64_t> steps);
  Estimate estimate() const { return {value, percentile_interval(resampled, sequences)}; }
};

/// ln((a + 1) / (b + 1)), resamples paired: below zero `a` comes first.
Estimate lead_of(const Onset& a, const Onset& b);

}  // namespace routescope::analysis
