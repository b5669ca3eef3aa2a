// Scratch with a piece for each thread.
#pragma once

#include <omp.h>

#include "kernels/stream.h"

namespace routescope::kernels::cpu {

class PerThread {
 public:
  /// Room for `floats` on each of the threads that a parallel region may have.
  PerThread(Scratch& scratch, std::int64_t floats)
      : stride_(padded(floats)),
        first_(scratch.take<float>(static_cast<std::size_t>(stride_ * omp_get_max_threads()))) {}

  /// The calling thread's piece.
  float* mine() const { return first_ + stride_ * omp_get_thread_num(); }

  /// Whole cache lines, so that no two threads write to one.
  static std::int64_t padded(std::int64_t floats) { return (floats + 15) / 16 * 16; }

 private:
  std::int64_t stride_;
  float* first_;
};

}  // namespace routescope::kernels::cpu
