// The curves from which findings are computed: masses and effects of a run's sets over its rows, each with its values
// on resamples of the documents; or weighted means of these curves over several runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "analysis/results/row.h"

namespace routescope::analysis {

/// A quantity of every row and set: its value, and its value on each resample. NaN if it was not measured, or if the
/// model gave NaN.
class ResampledCurves {
 public:
  ResampledCurves() = default;
  ResampledCurves(std::size_t rows, std::size_t sets, std::size_t resamples);

  double& value(std::size_t row, std::size_t set) { return values_[row * sets_ + set]; }
  double value(std::size_t row, std::size_t set) const { return values_[row * sets_ + set]; }
  std::span<double> resampled(std::size_t row, std::size_t set) {
    return std::span(resampled_).subspan((row * sets_ + set) * resamples_, resamples_);
  }
  std::span<const double> resampled(std::size_t row, std::size_t set) const {
    return std::span(resampled_).subspan((row * sets_ + set) * resamples_, resamples_);
  }

 private:
  std::size_t sets_ = 0, resamples_ = 0;
  std::vector<double> values_, resampled_;
};

struct Curves {
  std::size_t rows = 0, sets = 0, resamples = 0;
  /// Degrees of freedom of intervals of what follows from the curves: documents, or runs if there are several, less
  /// one. Runs are the fewer, so that intervals of pooled onsets are wide.
  double freedom = 0;
  bool until_decided = false;
  // Of each row's first ablation; those of controls NaN without them. The excess is the effect minus the control.
  ResampledCurves effect, control, excess, contribution_excess, mass, contribution;
};

using Rows = std::vector<const ProbeRow*>;

/// runs [run][row]: the rows of every run at the same steps, measured on the same sequences; each has an ablation.
/// `documents` [sequence], or empty: ProbeTokens::documents. A resample draws documents, the same for all rows, sets
/// and runs, and weighs runs. A mean is over all sequences; with until_decided, over the sequences on
/// which the set was measured (the others are NaN). A pure function of the rows and the seed.
Curves make_curves(std::span<const Rows> runs, std::size_t sets, std::size_t sequences,
                   std::span<const std::int64_t> documents, std::uint64_t seed, int resamples, bool until_decided);

}  // namespace routescope::analysis
