#include "data/base/build.h"

namespace routescope::data {

const char* routescope_version() {
  return ROUTESCOPE_VERSION;
}

std::string git_commit() {
  return
#include "git_commit.inc"  // a string literal, made by the build
      ;
}

}  // namespace routescope::data
