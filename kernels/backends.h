// The implementations behind ops.h, one namespace each, with identical signatures. For ops.cpp, the backends and tests.
#pragma once

#include "kernels/op_types.h"

namespace routescope::kernels::reference {
#include "kernels/op_declarations.inc"
}  // namespace routescope::kernels::reference

namespace routescope::kernels::cpu {
#include "kernels/op_declarations.inc"
/// Whether this build has matrix products on the CPU (ROUTESCOPE_CPU).
bool has_products();
}  // namespace routescope::kernels::cpu

namespace routescope::kernels::cuda {
#include "kernels/op_declarations.inc"
}  // namespace routescope::kernels::cuda
