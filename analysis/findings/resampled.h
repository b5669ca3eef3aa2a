// The curves from which findings are computed: masses and effects of a run's sets over its rows, each with its values
// on resamples of the sequences; or weighted means of these curves over several runs.
#pragma once

#include <algorithm>
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
  std::size_t rows = 0, sets = 0, sequences = 0, resamples = 0, runs = 0;
  bool until_decided = false;
  ResampledCurves effect, control, excess, mass;  // of each row's first ablation; control and excess NaN without it
  std::vector<std::size_t> used;  // [row, set] number of sequences of the effects, in the run with the fewest

  /// The least degrees of freedom of an interval from so many sequences.
  double degrees(std::size_t of_sequences) const {
    return static_cast<double>(runs > 1 ? std::min(of_sequences, runs) : of_sequences) - 1;
  }
};

using Rows = std::vector<const ProbeRow*>;

/// runs [run][row]: the rows of every run at the same steps, measured on the same sequences; each has an ablation. A
/// mean is over all sequences; with until_decided, over the sequences on which the set was measured (the others are
/// NaN). A pure function of the rows and the seed.
Curves make_curves(std::span<const Rows> runs, std::size_t sets, std::size_t sequences, std::uint64_t seed,
                   int resamples, bool until_decided);

}  // namespace routescope::analysis
