// The report's page and its scripts as this program carries them (the build makes them from the files of these names).
#pragma once

#include <string_view>

namespace routescope::analysis {

extern const std::string_view report_template;  // report_template.html
extern const std::string_view report_scripts;   // report_charts.js, _state, ..., _page, one after the other

}  // namespace routescope::analysis
