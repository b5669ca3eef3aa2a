// The implementations behind ops.h, one namespace each, with identical signatures. For ops.cpp, the backends and tests.
#pragma once

#include "kernels/op_types.h"

namespace routescope::reference {
#include "kernels/op_declarations.inc"
}  // namespace routescope::reference

namespace routescope::cpu {
#include "kernels/op_declarations.inc"
}  // namespace routescope::cpu

namespace routescope::cuda {
#include "kernels/op_declarations.inc"
}  // namespace routescope::cuda
