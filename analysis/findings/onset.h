// The steps from which on a curve is shown to be above zero, and has risen half way.
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
  std::vector<double> degrees;                 // [row] degrees of freedom of intervals

  std::vector<Estimate> estimates() const;
  /// One-sided, at 95 %.
  bool shown_above_zero(std::size_t row) const;
};

/// Step of the first row from which on, to the last, the curve is shown to be above zero; NaN: not even at the last.
/// Rows are tested from the last back to the first that fails. This order is fixed, so that the chance to claim a row
/// at which the curve is not above zero is 5 % at most, however many rows there are.
double shown_from(const Strength& strength, std::span<const std::int64_t> steps);

/// Half rise: the step of the row from which on the curve stays above half of its last value, up to noise. A step
/// function from 0 to the last value is fitted to the curve by least squares; it rises at this row, which has the
/// largest sum of curve - last / 2 over itself and all later rows. The curve is first clipped to [0, last], so that an
/// overshoot counts no more than a dip. A curve that crosses half once has its onset there. (With noise the first row
/// from which on *every* row is above half would come too late, and later the more rows there are.) The value is
/// infinite on resamples whose last value is not above zero. If the last row is not shown to be above zero, `shown` is
/// false and there is no value.
struct Onset {
  bool shown = false;
  double value = nan;
  std::vector<double> resampled;
  double degrees = 0;  // the least of all rows

  Onset(const Strength& strength, std::span<const std::int64_t> steps);
  Estimate estimate() const { return {value, percentile_interval(resampled, degrees)}; }
};

/// ln((a + 1) / (b + 1)), resamples paired: below zero `a` comes first.
Estimate lead_of(const Onset& a, const Onset& b);

}  // namespace routescope::analysis
