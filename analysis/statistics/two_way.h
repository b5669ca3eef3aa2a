// Means over runs that are measured on the same documents: both runs and documents are samples.
#pragma once

#include <cstddef>
#include <vector>

#include "analysis/statistics/statistics.h"

namespace routescope::analysis {

/// The mean over R runs and D documents, and where its error comes from. In the model x_rd = m + a_r + b_d + e_rd with
/// independent a, b, e the variance of the mean is var(a) / R + var(b) / D + var(e) / (R D).
struct TwoWay {
  double mean = nan;
  std::size_t runs = 0, documents = 0;
  double of_runs = nan;       // s^2 of the means of runs / R; expected: var(a) / R + var(e) / (R D). 0 for one run
  double of_documents = nan;  // s^2 of the means of documents / D; expected: var(b) / D + var(e) / (R D)
  double of_both = nan;  // s^2 of the residuals / (R D); expected: var(e) / (R D), counted twice above. 0 for one run

  /// values [run][document]. NaN for fewer than two documents, or if a value is not finite. Throws
  /// std::invalid_argument if runs have different numbers of documents, or there is no run.
  explicit TwoWay(const std::vector<std::vector<double>>& values);

  /// Degrees of freedom of of_runs + of_documents (Satterthwaite 1946). This sum is the variance of the mean over
  /// resamples of documents and run_weights(); it is too large by of_both.
  double degrees() const;
  /// Half the width of an interval of the mean: h^2 = t_{R-1}^2 of_runs + t_{D-1}^2 max(0, of_documents - of_both).
  /// Each source of error has the t of its own degrees of freedom, which makes the level a lower bound for normal
  /// values (Banerjee 1960), and what is counted twice is taken from the documents, which know it best. With
  /// Satterthwaite's degrees the level would not hold where a few runs differ more than documents do
  /// (analysis/README.md).
  double half_width(double level = interval_level) const;
};

/// The mean with its 95 % interval.
Estimate two_way_mean(const std::vector<std::vector<double>>& values);

}  // namespace routescope::analysis
