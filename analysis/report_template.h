// The text of report_template.html, built into the program.
#pragma once

#include <string_view>

namespace routescope {

extern const std::string_view report_template;

}  // namespace routescope
