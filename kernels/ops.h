// Every operation of the model, forward and backward, over one interface. The first tensor's device and type choose the
// implementation: CPU f64 the reference, CPU f32 the fast one, CUDA the kernels of kernels/cuda.
#pragma once

#include "kernels/device.h"
#include "kernels/op_types.h"

namespace routescope {

#include "kernels/op_declarations.inc"

/// As above for a given backend; the CPU's serves the reference too.
std::size_t workspace_bytes(const WorkspaceLimits& limits, Device device);

}  // namespace routescope
