// A stand-in for CUDA's runtime, in this process: streams are threads, device memory is memory of the host.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <functional>

namespace routescope::testing {

/// So many devices answer. A thread selects one of them for itself.
void set_fake_devices(int count);
/// Work on a stream, after what was enqueued before. It may wait, but not for later work.
void enqueue_fake(cudaStream_t stream, std::function<void()> work);
/// Memory of the device that this thread selected, taken in other ways than cudaMalloc.
void take_fake_memory(std::size_t bytes);
/// From now on every event of this device reports an illegal address, as after a faulty kernel.
void break_fake_device(int device);

}  // namespace routescope::testing
