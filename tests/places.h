// Where tests find what is not compiled into them. One file knows, so that no test depends on the place of a clone.
#pragma once

#include <string>

namespace routescope::testing {

/// The root of the source tree.
std::string source_dir();
/// The folder of the tools that the build made.
std::string bin_dir();

}  // namespace routescope::testing
