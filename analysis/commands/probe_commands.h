// The subcommands that measure: `probe` (given models) and `track` (all saved steps of a run, also while it goes on).
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace routescope::analysis {

/// A subcommand of the tool, and what it does once the command line is parsed. run() returns the exit status.
struct Subcommand {
  CLI::App* options;
  std::function<int()> run;
};

/// All ranks of a job run them together; rank 0 prints tables. They throw Error, UsageError.
Subcommand add_probe_command(CLI::App& tool);
Subcommand add_track_command(CLI::App& tool);

}  // namespace routescope::analysis
