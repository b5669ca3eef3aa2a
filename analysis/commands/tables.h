// Probe results as text for a terminal, at most 120 columns wide.
#pragma once

#include <string>

#include "analysis/record/record.h"

namespace routescope::analysis {

struct Findings;

/// One step: for each ablation a line for each set with mass, effect, its excess over the control (each with interval),
/// adjusted p values of no effect and of one beyond the margin, KL, coverage and what follows; then the atlas's check,
/// the distance from a closed form, and the cost, as far as the row has them.
std::string row_table(const ProbeRow& row, const ProbeIdentity& identity);

/// One line of one step: its nll and the set with the largest effect of the first ablation.
std::string step_line(const ProbeRow& row, const ProbeIdentity& identity);

/// All steps: the effects of the first ablation, with intervals, of the sets whose effect is the largest at any step.
std::string emergence_table(const AnalysisRecord& record);

/// The cost of a row in plain evaluations of the same tokens, one line. Empty for a row without.
std::string cost_line(const ProbeCost& cost);

/// What the rows say of the paper's three claims, a few lines. Empty where nothing was found out.
std::string findings_text(const Findings& findings, const AnalysisRecord& record);

}  // namespace routescope::analysis
