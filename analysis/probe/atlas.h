// The first-order effect of every route: one forward and one backward pass estimate what ablating each (read, source)
// would do, beside true ablations of some of them (MATH.md, "The atlas").
//
// The estimates are of `mask` and of `zero` alike. Their gates' gradients, dlogit_i and alpha_i <dh, v_i>, differ by
// alpha_i <dh, h>, and h goes through an RMSNorm, whose output its length changes only by eps beside mean(h^2). The
// true effects are one for the same reason: h without a term, and that h renormalised, have one direction. They part
// where what is left of h is so short that eps counts.
#pragma once

#include <cstdint>

#include "analysis/probe/measure.h"
#include "analysis/results/identity.h"
#include "analysis/results/row.h"
#include "kernels/comm/communicator.h"
#include "model/pass/model.h"

namespace routescope::analysis {

/// `model` in f32 (or f64). Ranks share the sequences. `step` tells the resampling of one row from that of another.
Atlas make_atlas(const model::Model& model, const ProbeIdentity& identity, std::int64_t step,
                 kernels::Communicator& communicator, std::size_t batch_bytes = default_batch_bytes);

}  // namespace routescope::analysis
