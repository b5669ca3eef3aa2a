// ProbeSettings as text: how a file keeps them, and what two of them differ in.
#pragma once

#include <string>

#include "analysis/probe/probe.h"

namespace routescope::analysis {

/// One line of JSON, a key for each member.
std::string to_json(const ProbeSettings& settings);
/// Throws Error naming `where` and the key that is missing, unknown or of another kind.
ProbeSettings settings_from_json(const std::string& text, const std::string& where);

/// The first member that differs: "controls: found 4, expected 8" (`found`'s value first); empty if none does. The
/// class file counts by what it says, which the caller compares, and not by its name.
std::string first_difference(const ProbeSettings& found, const ProbeSettings& expected);

}  // namespace routescope::analysis
