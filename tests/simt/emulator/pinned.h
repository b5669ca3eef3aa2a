// Pinned host memory, which copies reach while the host goes on. Work of the emulated device is done at once; what the
// host may not rely on before it has waited is made visible here: the bytes of a copy to pinned memory are garbage
// until then, and a copy from pinned memory that the host changed too early is an error of the wait.
#pragma once

#include <cstddef>
#include <cstdint>

namespace simt {

void* pinned_allocate(std::size_t bytes);
/// Waits for what is under way, as CUDA does.
void pinned_release(void* data) noexcept;
/// Whether the range begins in pinned memory.
bool is_pinned(const void* data);

/// A copy between device memory, which is open, and a pinned range.
void copy_to_pinned(void* dst, const void* src, std::size_t bytes, void* stream);
void copy_from_pinned(void* dst, const void* src, std::size_t bytes, void* stream);

/// A number that grows with every copy: what is under way now is at most as old.
std::uint64_t pinned_moment();
/// Ends the stream's copies up to a moment; the default stream's wait is for all streams. Throws std::runtime_error if
/// the host changed what one of them read.
void wait_for_pinned(void* stream, std::uint64_t moment);

}  // namespace simt
