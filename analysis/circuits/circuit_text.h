// Circuits as text for a terminal.
#pragma once

#include <string>

#include "analysis/circuits/circuit.h"

namespace routescope::analysis {

/// What was found at one step.
std::string circuit_text(const CircuitRow& row, const CircuitIdentity& identity);
/// A line for each step: size, faithfulness, completeness, minimality, areas, overlap with the circuit of the last one.
std::string circuits_table(const CircuitRecord& record);

}  // namespace routescope::analysis
