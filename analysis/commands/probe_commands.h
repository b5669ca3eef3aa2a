// The subcommands that measure: `probe` (given models) and `track` (all saved steps of a run, also while it goes on).
#pragma once

#include <filesystem>

#include "analysis/commands/options.h"
#include "kernels/comm/communicator.h"

namespace routescope::analysis {

/// Throws Error if it is not a directory.
void check_run(const std::filesystem::path& run);

/// Both print tables on rank 0 and return the exit status. Throw Error, UsageError.
int probe_command(const ProbeArguments& arguments, kernels::Communicator& communicator);
int track_command(const ProbeArguments& arguments, kernels::Communicator& communicator);

}  // namespace routescope::analysis
