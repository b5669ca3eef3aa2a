#include "train/build.h"

namespace routescope {

std::string git_commit() {
  return
#include "git_commit.inc"  // a string literal, made by the build
      ;
}

}  // namespace routescope
