// The part of CUDA's host runtime that the backend uses. driver.cpp implements it with CUDA, tests/simt by emulation.
#pragma once

#include <cstddef>

#include "kernels/device.h"

namespace routescope::kernels::cuda::driver {

// Each throws std::runtime_error with CUDA's own message on failure. Streams, events and graphs are opaque handles.
bool available() noexcept;
int count() noexcept;
/// For the thread that calls it.
void select(int index);
DeviceInfo info();
void* allocate(std::size_t bytes);  // zeroed
void release(void* data) noexcept;
void* allocate_pinned(std::size_t bytes);
void release_pinned(void* data) noexcept;
/// Any direction, in order on the stream.
void copy(void* dst, const void* src, std::size_t bytes, void* stream);
void synchronize(void* stream);
void* create_stream();
void destroy_stream(void* stream) noexcept;
void begin_recording(void* stream);
/// Ends a recording; returns an executable graph.
void* end_recording(void* stream);
void replay(void* graph, void* stream);
void destroy_graph(void* graph) noexcept;
void* create_event();
void destroy_event(void* event) noexcept;
void record_event(void* event, void* stream);
/// Waits for `end`; seconds from `begin` to it.
double seconds_between(void* begin, void* end);

}  // namespace routescope::kernels::cuda::driver
