// The first-order effect of every route: one forward and one backward pass estimate what ablating each (read, source)
// would do, beside true ablations of some of them (MATH.md, "The atlas").
//
// The estimates are of `mask` and of `zero` alike. Their gates' gradients, dlogit_i and alpha_i <dh, v_i>, differ by
// alpha_i <dh, h>, and h goes through an RMSNorm, whose output its length changes only by eps beside mean(h^2). The
// true effects are one for the same reason: h without a term, and that h renormalised, have one direction. They part
// where what is left of h is so short that eps counts.
#pragma once

#include <cstdint>
#include <vector>

#include "analysis/probe/probe_tokens.h"
#include "analysis/statistics/statistics.h"
#include "kernels/comm/communicator.h"
#include "model/pass/model.h"

namespace routescope::analysis {

/// A route that was really masked.
struct CheckedRoute {
  int read = 0, column = 0;
  Estimate true_effect;  // as Atlas::first_order
};

/// Effects are of `mask` on single routes, nats a token, mean over predicted tokens and sequences.
struct Atlas {
  /// [reads, columns]: minus the gradient of the nll with respect to a gate on exp(logit), summed over tokens: the
  /// linear estimate of the nll without the route minus the nll. 95 % BCa over sequences. NaN for a route that is not
  /// there or cannot be masked.
  std::vector<Estimate> first_order;
  /// By read and column. Drawn without replacement from all routes that can be masked, by the seed alone, so that all
  /// steps of a run check the same ones.
  std::vector<CheckedRoute> checked;
  // Over `checked`; NaN without any.
  Estimate rank_correlation;           // Spearman, of first_order and true_effect; 95 % percentiles over sequences
  double median_relative_error = nan;  // |first_order - true| / |true|

  bool empty() const { return first_order.empty(); }
};

struct AtlasOptions {
  std::uint64_t seed = 1;
  std::int64_t step = 0;
  int checks = 48;  // as many true ablations, or all routes if there are fewer
  /// What a pass takes, about: sequences go in batches (at least one at a time).
  std::size_t batch_bytes = std::size_t{512} << 20;
};

/// `model` in f32 (or f64). Ranks share the sequences. Throws Error as probe() does.
Atlas make_atlas(const model::Model& model, const ProbeTokens& tokens, const AtlasOptions& options,
                 kernels::Communicator& communicator);

}  // namespace routescope::analysis
