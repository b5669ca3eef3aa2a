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

bool largest_differ(const Dissociation& row) {
  return row.largest_mass != row.largest_effect && row.p_largest < 1 - interval_level;
}

}  // namespace routescope::analysis
