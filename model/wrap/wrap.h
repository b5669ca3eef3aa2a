// A standard model seen through Attention Residuals: cumulative sources, all queries zero, one bias on the current
// source (MATH.md, "Wrapping").
#pragma once

#include "model/files/tokens.h"
#include "model/pass/model.h"

namespace routescope::model {

/// The configuration of the wrapped model. Throws Error unless `standard` is a standard model.
ModelConfig wrapped_config(const ModelConfig& standard, Residual residual, std::int64_t num_blocks, double bias);
/// The wrapped model, with the standard model's weights.
Model wrap(const Model& standard, Residual residual, std::int64_t num_blocks, double bias);

/// alpha of the current source (`current`) and of each other one, of a read with n sources in all: e^b / (e^b + n - 1)
/// and 1 / (e^b + n - 1).
struct WrappedAlpha {
  double current, other;
};
WrappedAlpha wrapped_alpha(double bias, std::int64_t n);

/// How far a wrapped model is from its closed form and from the standard model, over given tokens.
struct WrapComparison {
  double alpha_error = 0;                    // max |alpha - closed form|
  double logit_difference = 0;               // max |logits - standard logits| / max |standard logits|
  double nll_standard = 0, nll_wrapped = 0;  // nats a token
};
WrapComparison compare_wrapped(const Model& wrapped, const Model& standard, const TokenBatch& tokens);

}  // namespace routescope::model
