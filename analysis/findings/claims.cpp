#include "analysis/findings/claims.h"

#include <algorithm>
#include <cmath>

#include "analysis/probe/closed_form.h"

namespace routescope::analysis {

double greatest_spread(const ProbeRow& row) {
  double out = 0;
  for (double variance : row.alpha_variance) {
    if (!std::isnan(variance)) out = std::max(out, std::sqrt(variance));
  }
  return out;
}

bool holds_closed_form(const ProbeRow& row) {
  return row.closed_form_error <= f32_rounding && greatest_spread(row) <= f32_rounding;
}

bool shown_above_control(const Motif& motif) {
  return !std::isnan(motif.shown_from);
}

std::size_t contests_that_differ(const Dissociation& row, MassKind kind) {
  std::size_t count = 0;
  for (std::size_t c = 0; c < num_contests; ++c) count += contest_name(c).mass == kind && row.contests[c].differ();
  return count;
}

std::size_t contests_tested(const Dissociation& row, MassKind kind) {
  std::size_t count = 0;
  for (std::size_t c = 0; c < num_contests; ++c)
    count += contest_name(c).mass == kind && !std::isnan(row.contests[c].p);
  return count;
}

}  // namespace routescope::analysis
