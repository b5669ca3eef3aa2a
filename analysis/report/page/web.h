// The files of web/ as the program carries them. The build makes web.cpp from web.cpp.in.
#pragma once

#include <string_view>

namespace routescope::analysis {

extern const std::string_view page_template;  // page.html
extern const std::string_view page_style;     // page.css
extern const std::string_view page_scripts;   // all scripts, in the order of CMakeLists.txt

}  // namespace routescope::analysis
