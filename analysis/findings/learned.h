// What a model has learned by a row: the measure of margins, and what every verdict rests on.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "analysis/findings/observed.h"

namespace routescope::analysis {

/// The learned gain: nll at step 0 minus nll at the row, on the same tokens. At step 0 it is 0, and no verdict stands.
struct Learned {
  Estimate gain;  // nats a token; NaN: the record has no row of step 0
  double by_chance =
      nan;            // nats a token: the largest |effect| of the first ablation at step 0, where nothing is learned
  double p = nan;     // one-sided, of a gain of at most by_chance
  double margin = 0;  // nats a token: ProbeRow::margin, mean over runs
  std::vector<double> effect_share;  // [set] delta_nll / gain; NaN where the gain is not shown to be above zero

  bool known() const { return !std::isnan(gain.value); }
  bool shown() const { return p < significance; }
};

/// The place of step 0 among the rows; -1: there is none.
std::ptrdiff_t initial_row(std::span<const std::int64_t> steps);

Learned learned_at(std::span<const Rows> runs, std::span<const std::int64_t> steps, std::size_t row,
                   std::size_t sequences, std::span<const std::int64_t> documents);

}  // namespace routescope::analysis
