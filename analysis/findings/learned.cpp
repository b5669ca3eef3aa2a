#include "analysis/findings/learned.h"

#include <algorithm>
#include <cmath>

namespace routescope::analysis {

std::ptrdiff_t initial_row(std::span<const std::int64_t> steps) {
  const auto found = std::find(steps.begin(), steps.end(), 0);
  return found == steps.end() ? -1 : found - steps.begin();
}

Learned learned_at(std::span<const Rows> runs, std::span<const std::int64_t> steps, std::size_t row,
                   std::size_t sequences, std::span<const std::int64_t> documents) {
  Learned out;
  for (const Rows& run : runs) out.margin += run[row]->margin / static_cast<double>(runs.size());
  const std::size_t sets = runs.front()[row]->ablations.empty() ? 0 : runs.front()[row]->ablations.front().sets.size();
  out.effect_share.assign(sets, nan);
  const std::ptrdiff_t initial = initial_row(steps);
  if (initial < 0) return out;
  // The row of a bare model is called step 0 too, but counts from a uniform guess.
  const ProbeRow& first = *runs.front()[static_cast<std::size_t>(initial)];
  if (!std::isnan(first.reference_nll) && first.reference_nll != first.intact_nll) return out;
  const Observed gain = observe(runs, row, sequences, documents, [&](const Rows& run, std::size_t at, std::size_t i) {
    return run[static_cast<std::size_t>(initial)]->intact_nll_sequence[i] - run[at]->intact_nll_sequence[i];
  });
  out.gain = gain.estimate();
  out.by_chance = 0;
  for (std::size_t s = 0; s < sets; ++s) {
    double effect = 0;
    for (const Rows& run : runs)
      effect += run[static_cast<std::size_t>(initial)]->ablations.front().sets[s].delta_nll.value;
    out.by_chance = std::fmax(out.by_chance, std::abs(effect) / static_cast<double>(runs.size()));
  }
  out.p = static_cast<std::ptrdiff_t>(row) == initial ? 1 : gain.p_above(out.by_chance);
  if (!out.shown()) return out;
  for (std::size_t s = 0; s < sets; ++s) {
    double effect = 0;
    for (const Rows& run : runs) effect += run[row]->ablations.front().sets[s].delta_nll.value;
    out.effect_share[s] = effect / static_cast<double>(runs.size()) / out.gain.value;
  }
  return out;
}

}  // namespace routescope::analysis
