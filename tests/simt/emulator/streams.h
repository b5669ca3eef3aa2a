// Streams of the emulated device: work runs at once, or is kept for later on a stream that records.
#pragma once

#include <functional>

namespace simt {

/// Runs `work`, or records it if the stream does so. Null is the default stream. Throws what the work throws.
void enqueue(void* stream, const char* what, std::function<void()> work);

}  // namespace simt
