// A named stretch of the host's time, which profilers show beside the device's work (NVTX). Does nothing in a build
// without NVTX.
#pragma once

namespace routescope::kernels {

class Range {
 public:
  explicit Range(const char* name);
  ~Range();
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;
};

}  // namespace routescope::kernels
