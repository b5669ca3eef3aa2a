// What counts as shown of the paper's three claims, wherever they are worded.
#pragma once

#include "analysis/findings/findings.h"

namespace routescope::analysis {

/// The most that a weight varies over tokens, of all routes: a standard deviation.
double greatest_spread(const ProbeRow& row);
/// Claim 1: the weights are their closed form (closed_form.h), whatever the token, to rounding.
bool holds_closed_form(const ProbeRow& row);
/// Claim 2: the motif is shown at the last row: above controls of the same weight and of the same contribution, more
/// than at step 0, and more than the other slices of its place; 5 % over the paper's motifs.
bool shown_above_control(const Motif& motif);
/// Claim 3: contests at which the heaviest is shown not to be the strongest, of those of one mass.
std::size_t contests_that_differ(const Dissociation& row, MassKind kind);
/// Contests of that mass that were tested.
std::size_t contests_tested(const Dissociation& row, MassKind kind);

}  // namespace routescope::analysis
