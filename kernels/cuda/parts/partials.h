// Sums over tokens into a few columns (gradients of gains and biases), the same bits every time and on every card: a
// fixed number of blocks each leaves one row of partial sums in the workspace, and these are added in a fixed order.
#pragma once

#include "kernels/stream.h"

namespace routescope::kernels::cuda {

#ifdef ROUTESCOPE_SIMT
// Few in emulation, so that blocks loop more than once on small inputs too.
inline constexpr int kNormPartials = 4;
inline constexpr int kRopePartials = 5;
inline constexpr int kRoutingPartials = 3;
inline constexpr int kContributionPartials = 2;
#else
/// Blocks of sum_of_squares' first level: six of 256 threads for each of 132 multiprocessors.
inline constexpr int kNormPartials = 792;
/// Blocks of qk_norm_rope_backward: four of 128 threads for each of 132 multiprocessors.
inline constexpr int kRopePartials = 528;
/// Blocks of routing_statistics for each column.
inline constexpr int kRoutingPartials = 64;
/// Blocks of contribution_statistics: four of 128 threads for each of 132 multiprocessors.
inline constexpr int kContributionPartials = 528;
#endif
/// Tokens, neighbours in the order of their ids, whose gradients one warp of embedding_backward adds up.
inline constexpr int kEmbeddingPiece = 32;

/// dst [width] += the sum of `count` rows of partials [count, width].
void add_partials(float* dst, const float* partials, int count, int width, const Stream& stream);

}  // namespace routescope::kernels::cuda
