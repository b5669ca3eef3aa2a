// `circuit`: which edges a model needs, and when they come about.
#pragma once

#include "analysis/commands/probe_commands.h"

namespace routescope::analysis {

/// As add_probe_command().
Subcommand add_circuit_command(CLI::App& tool);

}  // namespace routescope::analysis
