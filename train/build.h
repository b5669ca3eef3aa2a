// What this build was made from.
#pragma once

#include <string>

namespace routescope {

/// The commit, in hexadecimal; empty where it was built from a tree without history.
std::string git_commit();

}  // namespace routescope
