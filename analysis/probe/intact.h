// Measurements of the intact model: for the row, and as the reference of ablations.
#pragma once

#include <vector>

#include "analysis/probe/measure.h"
#include "analysis/results/probe_tokens.h"
#include "analysis/routes/prepare.h"
#include "analysis/statistics/statistics.h"
#include "model/pass/model.h"

namespace routescope::analysis {

/// What each route holds of its read, by some measure of mass.
struct RouteMasses {
  std::vector<double> sequence;  // [sequence][reads, columns] mean over its tokens; 0 for a column that a read lacks
  std::vector<double> mean;      // [reads, columns] over all tokens; NaN for a column that a read lacks
};

struct Intact {
  std::vector<double> nll_sequence;   // [sequence] nats a token, mean over predicted tokens
  std::vector<MetricValues> answers;  // [sequence] of a task
  RouteMasses alpha, contribution, norm_mass;
  std::vector<double> alpha_variance;  // [reads, columns] over all tokens
  Reference reference;                 // its means by route are those above
  double closed_form_error = nan;      // ProbeRow
  double seconds = 0;                  // of the passes with the head, on this rank
};

/// Sums over sequences are in their order, the same on every rank. `source_means`: also Reference::source_mean.
Intact measure_intact(const model::Model& model, const ProbeTokens& tokens, bool source_means, SharedBatches& batches);

}  // namespace routescope::analysis
