// What masking each single route would do, estimated without masking any: one forward and two backward passes,
// and a sublayer for each route (MATH.md, "The atlas").
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "analysis/probe/measure.h"
#include "analysis/results/probe_tokens.h"
#include "model/pass/model.h"

namespace routescope::analysis {

/// For each sequence of [begin, end) two tables [reads, columns], one after the other, in nats, summed over tokens:
///   first_order  minus the gradient of the sequence's nll with respect to a gate on the route's exp(logit)
///   estimate     <g, dy> + (1/2) <g~, dy>^2, dy the exact change of what the read's sublayer makes
/// 0 for a route that is not there or is its read's only one. Labels of g~ are drawn by `seed` and the token's place in
/// `tokens` (of a task, the prompt's number); they are the same whoever measures the sequence, in whatever batch.
/// `model` in f32 or f64.
std::vector<double> route_estimates(const model::Model& model, const ProbeTokens& tokens, std::int64_t begin,
                                    std::int64_t end, std::uint64_t seed,
                                    std::size_t batch_bytes = default_batch_bytes);

/// The first id at which the cumulated softmax of `logits` exceeds `uniform`, in (0, 1).
std::int32_t draw_label(std::span<const double> logits, double uniform);

}  // namespace routescope::analysis
