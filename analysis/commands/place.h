// Where a measurement runs, and on how many ranks: what the subcommands that measure share.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "analysis/commands/ranks.h"
#include "analysis/results/settings.h"
#include "model/pass/model.h"

namespace routescope::analysis {

/// Where a measurement runs, where its models are and where its results go.
struct Place {
  std::string run, model, out, device = "cpu";
  double timeout = 86400;  // a rank measures all of its sequences between two exchanges with the others
};

/// --device and --timeout.
void add_place_options(CLI::App& command, Place& place);

/// Gives every rank of the job its device, and runs `body`. Throws UsageError if --out would replace what is measured
/// or what it is measured with.
int on_all_ranks(const Place& place, const ProbeSettings& settings,
                 const std::function<int(const Ranks&, const model::ModelOptions&)>& body);

}  // namespace routescope::analysis
