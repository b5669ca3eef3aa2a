// The options of a measurement, which `probe` and `track` share.
#pragma once

#include <CLI/CLI.hpp>

#include "analysis/results/settings.h"

namespace routescope::analysis {

/// Names of ablations and of classes become what they stand for while the command line is parsed, which throws
/// UsageError naming the option.
void add_measurement_options(CLI::App& command, ProbeSettings& settings);
/// Of these, what names the tokens.
void add_token_options(CLI::App& command, ProbeSettings& settings);

}  // namespace routescope::analysis
