// Numbers, steps, routes and lists as a reader sees them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "analysis/findings/findings.h"

namespace routescope::analysis {

/// With a true minus sign; an en dash for NaN. `format` is one of fmt for a double: "{:+.4f}".
std::string number_text(const char* format, double value);
/// A share as "12.3 %".
std::string percent_text(double share);
/// "+0.0123 [+0.0100, +0.0150]"; without the brackets where there is no interval.
std::string estimate_text(const Estimate& estimate, const char* format = "{:+.4f}");
/// A training step with its interval: "64 [32, 128]"; "not shown" for NaN, "never" for an end that is infinite. Of the
/// first of `steps`: "at or before 1"; an en dash where there are not two, since one step dates nothing.
std::string onset_text(const Estimate& onset, std::span<const std::int64_t> steps);
/// 5632104 -> "5 632 104", with narrow spaces.
std::string thousands_text(std::int64_t value);
/// "a", "a and b", "a, b and c"; "none" of nothing.
std::string list_text(const std::vector<std::string>& items);
/// Slices as routes from families of sources into sublayers: "current → early attention and MLP".
std::string slices_text(const std::vector<int>& slices);
/// The same of the name of one slice; any other name of a set as it is.
std::string set_text(const std::string& name);

}  // namespace routescope::analysis
