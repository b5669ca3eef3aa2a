// The version and the commit of this build.
#pragma once

#include <string>

namespace routescope::data {

/// The version of this program, MAJOR.MINOR.PATCH.
const char* routescope_version();

/// The commit, in hexadecimal; empty where it was built from a tree without history.
std::string git_commit();

}  // namespace routescope::data
