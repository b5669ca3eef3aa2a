// How the CPU backend cuts work between threads. The cuts depend on extents only, never on the number of threads. Every
// thread runs the same instructions for a chunk, and partial sums are added in chunk order, so results are the same
// bits for every number of threads.
#pragma once

#include <algorithm>
#include <cstdint>

namespace routescope::kernels::cpu {

/// A cut of [0, count) into chunks of equal size; the last one may be smaller.
struct Chunks {
  std::int64_t count;
  std::int64_t size;
  std::int64_t number() const { return (count + size - 1) / size; }
};

/// Calls body(chunk, begin, end) for each chunk, on all threads.
template <class Body>
void parallel_for(const Chunks& chunks, Body&& body) {
  const std::int64_t number = chunks.number();
#pragma omp parallel for schedule(static) if (number > 1)
  for (std::int64_t c = 0; c < number; ++c) body(c, c * chunks.size, std::min(chunks.count, (c + 1) * chunks.size));
}

/// Rows of an independent computation: about 16 KiB a chunk, so that small tensors stay on one thread.
inline Chunks row_chunks(std::int64_t rows, std::int64_t width) {
  return {rows, std::max<std::int64_t>(1, 4096 / std::max<std::int64_t>(1, width))};
}

/// Elements of a flat array.
inline Chunks element_chunks(std::int64_t count) {
  return {count, 1 << 14};
}

/// The most partial sums of a reduction over tokens: enough to balance 64 threads, and few to add.
inline constexpr std::int64_t kMaxPartials = 128;

/// Rows of a reduction over tokens: at most kMaxPartials chunks of at least 8 rows.
inline Chunks reduction_chunks(std::int64_t rows) {
  return {rows, std::max<std::int64_t>(8, (rows + kMaxPartials - 1) / kMaxPartials)};
}

}  // namespace routescope::kernels::cpu
