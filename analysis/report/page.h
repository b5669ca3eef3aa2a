// What the pages that this program writes have in common: text that cannot act, and numbers as people read them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "analysis/findings/findings.h"

namespace routescope::analysis {

/// Text for HTML and SVG, between tags and in quoted attributes.
std::string escape_html(std::string_view text);

/// The style sheet of the report (what stands in its style element), for other pages.
std::string_view page_style();

/// With a true minus sign; an en dash for NaN. `format` is one of fmt for a double: "{:+.4f}".
std::string number_text(const char* format, double value);
/// A share as "12.3 %", with as many decimals.
std::string percent_text(double share, int decimals = 1);
/// "+0.0123 [+0.0100, +0.0150]"; without the brackets where there is no interval.
std::string estimate_text(const Estimate& estimate, const char* format = "{:+.4f}");
/// A training step with its interval: "64 [32, 128]"; "not shown" for NaN, "never" for an end that is infinite. Of the
/// first of `steps`: "at or before 1"; an en dash where there are not two, since nothing is dated by one.
std::string onset_text(const Estimate& onset, std::span<const std::int64_t> steps);
/// 5632104 -> "5 632 104", with narrow spaces.
std::string thousands_text(std::int64_t value);
/// "a", "a and b", "a, b and c"; "none" of nothing.
std::string list_text(const std::vector<std::string>& items);

}  // namespace routescope::analysis
