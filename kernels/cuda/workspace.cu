// The scratch that the widest operation within some limits takes: one line for each operation, as its kernel takes it.
#include <algorithm>
#include <initializer_list>

#include "kernels/backends.h"
#ifdef ROUTESCOPE_CUDNN
#include "kernels/cuda/attention/attention_cudnn.h"
#endif
#include "kernels/cuda/parts/launch.h"
#include "kernels/cuda/parts/partials.h"
#include "kernels/cuda/parts/row_block.h"
#include "kernels/cuda/products.h"

namespace routescope::kernels::cuda {

namespace {

/// Arrays of so many bytes as Scratch cuts them.
std::size_t arrays(std::initializer_list<std::int64_t> bytes) {
  std::int64_t sum = 0;
  for (const std::int64_t size : bytes) sum += ceil_div<std::int64_t>(size, 64) * 64;
  return static_cast<std::size_t>(sum);
}

}  // namespace

std::size_t workspace_bytes(const WorkspaceLimits& limits) {
  constexpr std::int64_t kFloat = sizeof(float), kWide = 8;
  const std::int64_t tokens = limits.tokens, d = limits.hidden_size;
  const AttentionShape& attention = limits.attention;
  return std::max({
      arrays({kWide * tokens, kWide * tokens,
              kFloat * ceil_div<std::int64_t>(tokens, kEmbeddingPiece) * d}),  // embedding_backward
      arrays({kFloat * kRopePartials * attention.head_dim}),                   // qk_norm_rope_backward
      arrays({kFloat * tokens * attention.heads}),                             // attention_backward
#ifdef ROUTESCOPE_CUDNN
      attention_cudnn_workspace(attention),  // attention_*, by cuDNN
#endif
      limits.product_k > 0 ? kProductWorkspace : 0,                      // matmul
      arrays({kFloat * most_gradient_blocks(tokens, d) * (2 * d + 1)}),  // add_rms_norm_backward, attn_res_backward
      arrays({kWide * kRoutingPartials * limits.sources * 4}),           // routing_statistics
      arrays({kWide * kContributionPartials * limits.sources * 2}),      // contribution_statistics
      arrays({kWide * kNormPartials}),                                   // sum_of_squares
  });
}

}  // namespace routescope::kernels::cuda
