// An effect for every single route of a model: what masking it would do, estimated without masking any,
// beside true ablations of some or all of them (MATH.md, "The atlas").
//
// The estimates are of `mask` and of `zero` alike. h goes through an RMSNorm, whose output its length changes only by
// eps beside mean(h^2): h without a term, and that h renormalised, have one direction. The two part where what is left
// of h is so short that eps counts.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "analysis/probe/measure.h"
#include "analysis/results/identity.h"
#include "analysis/results/row.h"
#include "kernels/comm/communicator.h"
#include "model/pass/model.h"

namespace routescope::analysis {

/// Every (read, column) of a read that has others: the routes that can be masked.
std::vector<std::pair<int, int>> maskable_routes(const model::ReadPlan& plan);

/// `model` in f32 (or f64). Ranks share the sequences. `step` tells the resampling of one row from that of another.
Atlas make_atlas(const model::Model& model, const ProbeIdentity& identity, std::int64_t step,
                 kernels::Communicator& communicator, std::size_t batch_bytes = default_batch_bytes);

}  // namespace routescope::analysis
