// Where tests find what is not compiled into them. One file knows, so that no test depends on the place of a clone.
#pragma once

#include <string>

namespace routescope::testing {

/// The root of the source tree.
std::string source_dir();
/// The Python that has the packages which scripts/install_packages.sh installs: the system's, whatever comes before it
/// on the path.
std::string python();
/// The folder of the tools that the build made.
std::string bin_dir();

}  // namespace routescope::testing
