// `coalitions`: what slices do alone, kept alone, in pairs, and their Shapley values.
#pragma once

#include "analysis/commands/probe_commands.h"

namespace routescope::analysis {

/// As add_probe_command().
Subcommand add_coalition_command(CLI::App& tool);

}  // namespace routescope::analysis
