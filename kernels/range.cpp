#include "kernels/range.h"

#ifdef ROUTESCOPE_NVTX
#include <nvtx3/nvToolsExt.h>
#endif

namespace routescope::kernels {

#ifdef ROUTESCOPE_NVTX
Range::Range(const char* name) {
  nvtxRangePushA(name);
}
Range::~Range() {
  nvtxRangePop();
}
#else
Range::Range(const char*) {}
Range::~Range() {}
#endif

}  // namespace routescope::kernels
