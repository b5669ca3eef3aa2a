// The second level of sums over tokens:  dst[j] += sum_p partials[p, j],  partials [count, width].
// At 500 rows column_sums makes two rounds of loads (aim: 5 us).
#include "kernels/cuda/parts/column_sums.h"
#include "kernels/cuda/parts/partials.h"

namespace routescope::kernels::cuda {

namespace {

__global__ void __launch_bounds__(kColumnSumThreads)
    add_partials_kernel(float* dst, const float* partials, int count, int width) {
  column_sums(partials, count, width, [=](int j, float sum) { dst[j] += sum; });
}

}  // namespace

void add_partials(float* dst, const float* partials, int count, int width, const Stream& stream) {
  launch("add_partials", add_partials_kernel, column_sums_grid(width), stream, dst, partials, count, width);
}

}  // namespace routescope::kernels::cuda
