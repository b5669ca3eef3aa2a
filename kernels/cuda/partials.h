// Sums over tokens into a few columns (gradients of gains and biases), the same bits every time and on every card: a
// fixed number of blocks each leaves one row of partial sums in the workspace, and these are added in a fixed order.
#pragma once

#include "kernels/stream.h"

namespace routescope::cuda {

/// dst [width] += the sum of `count` rows of partials [count, width].
void add_partials(float* dst, const float* partials, int count, int width, const Stream& stream);

}  // namespace routescope::cuda
