// Sums over tokens: one partial sum a chunk, added up in chunk order.
#pragma once

#include <cstring>

#include "kernels/cpu/parts/parallel.h"

namespace routescope::kernels::cpu {

/// Calls body(partial, begin, end) for each chunk of rows with a zeroed partial [width] to add to; then
/// finish(j, sum over the chunks of partial[j]) for each j. `partials` holds at least kMaxPartials * width floats.
template <class Body, class Finish>
void reduce_rows(std::int64_t rows, std::int64_t width, float* partials, Body&& body, Finish&& finish) {
  const Chunks chunks = reduction_chunks(rows);
  const std::int64_t number = chunks.number();
  parallel_for(chunks, [&](std::int64_t c, std::int64_t begin, std::int64_t end) {
    float* partial = partials + c * width;
    std::memset(partial, 0, static_cast<std::size_t>(width) * sizeof(float));
    body(partial, begin, end);
  });
  parallel_for(Chunks{width, 256}, [&](std::int64_t, std::int64_t begin, std::int64_t end) {
    for (std::int64_t c = 1; c < number; ++c) {
#pragma omp simd
      for (std::int64_t j = begin; j < end; ++j) partials[j] += partials[c * width + j];
    }
    if (number > 0)
      for (std::int64_t j = begin; j < end; ++j) finish(j, partials[j]);
  });
}

}  // namespace routescope::kernels::cpu
