// The step at which a curve has risen half way, and the steps from which on it is shown to have.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "analysis/statistics/statistics.h"

namespace routescope::analysis {

/// A curve over rows and its values on resamples of documents.
struct Strength {
  std::vector<double> value;                   // [row]
  std::vector<std::vector<double>> resampled;  // [row][resample]
  std::vector<double> freedom;                 // [row] degrees of freedom, which set the width of intervals

  std::vector<Estimate> estimates() const;
};

/// Step of the first row from which on, to the last, every p value (one of each row, NaN: not tested) is significant;
/// NaN: not even the last. Rows are tested from the last back to the first that fails. This order is fixed, so that the
/// chance to claim a row at which the hypothesis holds is 5 % at most, however many rows there are.
double shown_from(std::span<const double> p, std::span<const std::int64_t> steps);

/// Half rise: a step function from 0 to the last value, fitted to the curve by least squares, rises at the row which
/// has the largest sum of curve - last / 2 over itself and all later rows. The curve is first clipped to [0, last], so
/// that an overshoot counts no more than a dip. (With noise the first row from which on *every* row is above half would
/// come too late, and later the more rows there are.) The value lies between that row and the one before, where the
/// straight line between the two crosses half of the last value, so that it depends little on which steps were saved;
/// what happened between two rows is not known, and the interval reaches at least from one to the other. At the first
/// row the value is its step: the rise may have come before. The value is infinite on resamples whose last value is not
/// above zero. Without `shown`, that the last row is above zero, there is no value.
struct Onset {
  bool shown = false;
  double value = nan;
  Interval rows{nan, nan};  // steps of the row before the rise and of the row of the rise
  std::vector<double> resampled;
  double freedom = nan;  // the least of all rows

  Onset(const Strength& strength, std::span<const std::int64_t> steps, bool shown);
  Estimate estimate() const;
};

/// ln((a + 1) / (b + 1)), resamples paired: below zero `a` comes first. The interval holds what the rows leave open.
Estimate lead_of(const Onset& a, const Onset& b);

}  // namespace routescope::analysis
