// Every operation of the model, forward and backward, over one interface. The first tensor's device and type choose the
// implementation: CPU f64 the reference, CPU f32 the fast one, CUDA the kernels of kernels/cuda.
#pragma once

#include <vector>

#include "kernels/device.h"
#include "kernels/op_types.h"

namespace routescope::kernels {

#include "kernels/op_declarations.inc"

/// The elements of a tensor of any type but i32, on any device, as T (float or double) in host memory. Waits for them.
template <class T>
std::vector<T> host_values(Tensor tensor, const Stream& stream);

/// As above for a given backend; the CPU's serves the reference too.
std::size_t workspace_bytes(const WorkspaceLimits& limits, Device device);

}  // namespace routescope::kernels
