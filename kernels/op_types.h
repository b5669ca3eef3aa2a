// The argument groups that several operations share.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/stream.h"
#include "kernels/tensor.h"

namespace routescope::kernels {

enum class Transpose : bool { no = false, yes = true };

/// Geometry of grouped-query attention over a packed activation [batch*seq_len, (heads + 2*kv_heads) * head_dim], whose
/// row is q heads, then k heads, then v heads. Query head h uses key/value head h / (heads / kv_heads).
struct AttentionShape {
  std::int64_t batch;
  std::int64_t seq_len;
  std::int64_t heads;
  std::int64_t kv_heads;
  std::int64_t head_dim;

  std::int64_t tokens() const { return batch * seq_len; }
  std::int64_t packed_width() const { return (heads + 2 * kv_heads) * head_dim; }
};

/// The completed sources of a read, oldest first (MATH.md, "Residual stream and reads": C = [c_0, ..., c_{n-1}]).
struct AttnResSources {
  std::span<const Tensor> values;   // n tensors [tokens, d]
  std::span<const Tensor> inv_rms;  // n tensors [tokens]: (mean(c_i^2) + eps)^(-1/2)
};

/// The learned and given parameters of a read and of the RMSNorm that follows it.
struct AttnResParams {
  Tensor query;       // w_r [d]
  Tensor key_gain;    // g_r [d]
  Tensor bias;        // [1], learned, added to the current source's logit; undefined: none
  Tensor logit_bias;  // B_r [n+1], given, may hold -inf (a mask), at least one entry finite; undefined: zeros
  Tensor norm_gain;   // [d], of the sublayer's own RMSNorm
  double eps = 1e-6;
};

/// What a read leaves behind. Sources are ordered as in AttnResSources with the current source last.
struct AttnResState {
  Tensor partial;    // p [tokens, d], after the addition; the read's current source
  Tensor inv_rms;    // [tokens], of p
  Tensor score;      // [tokens, n+1]: s_i <u, v_i>, the logit before any bias
  Tensor alpha;      // [tokens, n+1]
  Tensor h_inv_rms;  // [tokens], of h = sum_i alpha_i v_i
};

/// Gradients with respect to a read's learned parameters; all are added to. `bias` may be undefined.
struct AttnResParamGrads {
  Tensor query;      // [d]
  Tensor key_gain;   // [d]
  Tensor bias;       // [1]
  Tensor norm_gain;  // [d]
};

/// What phase one leaves for one read's phase two (attn_res_prepare, attn_res_merge).
struct AttnResPrepared {
  Tensor output;  // [tokens, d]: the read's mixture of the completed sources alone
  Tensor lse;     // [tokens]: log-sum-exp of their biased scores
  Tensor score;   // [tokens, n+1]: the read's state.score, of which phase one writes the first n columns
};

/// One read's share of the deferred gradient of completed sources.
struct AttnResDeferred {
  Tensor dh;        // [tokens, d]
  Tensor dlogit;    // [tokens, n+1]
  Tensor alpha;     // [tokens, n+1]
  Tensor score;     // [tokens, n+1]
  Tensor query;     // [d]
  Tensor key_gain;  // [d]
};

struct AdamWParams {
  double learning_rate;
  double beta1;
  double beta2;
  double eps;
  double weight_decay;
  std::int64_t step;  // 1 at the first update; for the bias corrections
};

/// The largest extents a stream's workspace has to serve.
struct WorkspaceLimits {
  std::int64_t tokens = 0;       // rows of any activation
  std::int64_t hidden_size = 0;  // the widest row that is normalised or reduced over tokens
  std::int64_t sources = 1;      // n + 1 of the widest read
  std::int64_t product_k = 0;    // the longest and widest extents of any matrix product
  std::int64_t product_n = 0;
  AttentionShape attention{};
};

}  // namespace routescope::kernels
