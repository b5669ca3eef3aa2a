// What counts as shown of the paper's three claims, wherever they are worded.
#pragma once

#include "analysis/findings/findings.h"

namespace routescope::analysis {

/// The most that a weight varies over tokens, of all routes: a standard deviation.
double greatest_spread(const ProbeRow& row);
/// Claim 1: the weights are their closed form (closed_form.h), whatever the token, to rounding.
bool holds_closed_form(const ProbeRow& row);
/// Claim 2: the motif's excess is shown to be above zero at the last row, by the test of `shown_from` (one-sided, 5 %).
bool shown_above_control(const Motif& motif);
/// Claim 3: a test shows (5 %) that another slice has a larger effect than the slice of the largest mass. For pooled
/// findings every run must show it.
bool largest_differ(const Dissociation& row);

}  // namespace routescope::analysis
