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
/// Claim 3: the slice of the largest mass is shown not to have the largest effect; of pooled findings, in every run.
bool largest_differ(const Dissociation& row);

}  // namespace routescope::analysis
