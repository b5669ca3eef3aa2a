#include "tests/places.h"

namespace routescope::testing {

std::string source_dir() {
  return ROUTESCOPE_SOURCE_DIR;
}

std::string bin_dir() {
  return ROUTESCOPE_BIN_DIR;
}

}  // namespace routescope::testing
