// What the claims' texts share: whom they are about, what they rest on, and why there may be no verdict.
#pragma once

#include <span>
#include <string>

#include "analysis/report/claim_text.h"

namespace routescope::analysis {

/// The runs that the claims are about.
std::span<const StudyRun> runs_of(const Study& study);
/// Findings are those of the first ablation: its name.
std::string ablation_name(const Study& study);
/// "p < 0.001", "p = 0.02"; "not tested" for NaN.
std::string p_text(double p);
/// Why no verdict can be given at the last step; empty if it can.
std::string no_verdict(const Study& study);
/// What the verdict rests on: the learned gain, and the documents if they are few or not known.
void add_basis(Claim& out, const Study& study);

}  // namespace routescope::analysis
