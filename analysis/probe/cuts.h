// The loss of every sequence under each of many cuts of the routing.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "analysis/probe/measure.h"
#include "analysis/results/probe_tokens.h"
#include "analysis/routes/prepare.h"
#include "model/pass/model.h"

namespace routescope::analysis {

/// An ablation of routes, sorted by read, each at most once. Reads that it cannot change are left alone.
struct Cut {
  Ablation ablation = Ablation::mask;
  std::vector<GatedRoute> routes;
};

/// What all cuts of a measurement use.
struct CutContext {
  const model::Model& model;  // in f32 or f64
  const ProbeTokens& tokens;
  const Reference& reference;  // with what their ablations need of it (prepare_ablation())
  std::uint64_t seed = 1;      // of `resample`
};

/// For each sequence, in nats a token, mean over predicted tokens: the nll of the intact model, then what every cut
/// adds to it, 0 for one that changes no read. Cuts are computed from the one that starts deepest to the one that
/// starts first, whatever their order here, so that they share what precedes them. `what` names the measurement where
/// ranks share it. Throws std::invalid_argument for Ablation::patch, which needs aligned sequences, and Error for
/// `mean` without room.
std::vector<std::vector<double>> measure_cuts(SharedBatches& batches, const CutContext& context,
                                              std::span<const Cut> cuts, const std::string& what);

/// What measure_cuts() takes, in plain forward passes, counted as ProbeCost counts; one of them is intact.
double passes_of(const model::ReadPlan& plan, std::span<const Cut> cuts);

}  // namespace routescope::analysis
