// A named stretch of the host's time, which profilers show beside the device's work (NVTX). Nothing without NVTX.
#pragma once

#ifdef ROUTESCOPE_NVTX
#include <nvtx3/nvToolsExt.h>
#endif

namespace routescope::kernels {

class Range {
 public:
#ifdef ROUTESCOPE_NVTX
  explicit Range(const char* name) {
    nvtxRangePushA(name);
  }
  ~Range() {
    nvtxRangePop();
  }
#else
  explicit Range(const char*) {}
  ~Range() {}
#endif
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;
};

}  // namespace routescope::kernels
