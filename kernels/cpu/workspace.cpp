// CPU: the scratch that the widest operation within some limits takes. One line for each operation.
#include <omp.h>

#include <algorithm>
#include <initializer_list>

#include "kernels/backends.h"
#include "kernels/cpu/parts/attention_tiles.h"
#include "kernels/cpu/parts/parallel.h"

namespace routescope::kernels::cpu {

std::size_t workspace_bytes(const WorkspaceLimits& limits) {
  const std::int64_t d = limits.hidden_size, threads = omp_get_max_threads();
  const std::int64_t head_dim = limits.attention.head_dim;
  const std::int64_t floats = std::max({
      kMaxPartials * d,                                                        // add_rms_norm_backward
      d + kMaxPartials * (2 * d + 1) + threads * d,                            // attn_res_*
      16 * d + threads * limits.sources * 33,                                  // attn_res_backward_sources
      16 * d + threads * limits.sources,                                       // attn_res_prepare
      2 * kMaxPartials * (3 * limits.sources + 1),                             // routing_statistics
      threads * (d + 2 * limits.sources) + 4 * kMaxPartials * limits.sources,  // contribution_statistics
      head_dim + kMaxPartials * 2 * head_dim + threads * 2 * head_dim,         // qk_norm_rope_*
      threads * (kStrip * (4 * head_dim + 2 * kTile + 3) + kTile * head_dim),  // attention_*
      2 * kMaxPartials,                                                        // sum_of_squares
  });
  // Arrays are rounded up to whole cache lines, and rows of a thread to whole vectors.
  constexpr std::int64_t kArrays = 8;
  return static_cast<std::size_t>((floats + 16 * (kArrays + 2 * threads)) * static_cast<std::int64_t>(sizeof(float)));
}

}  // namespace routescope::kernels::cpu
