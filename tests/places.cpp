#include "tests/places.h"

#include <filesystem>

namespace routescope::testing {

std::string source_dir() {
  return ROUTESCOPE_SOURCE_DIR;
}

std::string python() {
  return std::filesystem::exists("/usr/bin/python3") ? "/usr/bin/python3" : "python3";
}

std::string bin_dir() {
  return ROUTESCOPE_BIN_DIR;
}

}  // namespace routescope::testing
