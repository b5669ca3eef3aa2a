// What one model's routing does, on given tokens: the mass of every set of routes, the causal effect of ablating it
// beside that of mass-matched controls, and what may be said of both.
#pragma once

#include <cstdint>

#include "analysis/probe/measure.h"
#include "analysis/results/identity.h"
#include "analysis/results/row.h"
#include "kernels/comm/communicator.h"
#include "model/pass/model.h"

namespace routescope::analysis {

struct ProbeOptions {
  /// Loss of the model at step 0 on the same tokens, nats a token: what was learned counts from it. NaN: it is not
  /// known, and a uniform guess, ln(vocabulary), takes its place.
  double reference_nll = nan;
  /// The model is that of step 0: it has learned nothing.
  bool initial = false;
  std::size_t batch_bytes = default_batch_bytes;
  /// Without it every ablation is computed from the first read: the same bits, for checks.
  bool share_prefix = true;
};

/// Ablates every set in turn. Throws Error for `mean` without room (expect_room_for_means()). `step` is that of
/// training; it tells the resampling of one row from that of another. Ranks share the sequences and all return the row
/// of all of them. Its numbers are sums over sequences in their order, however many ranks there are: the same bits
/// where a sequence's own are (another batch size may take another path through a matrix product, whose f32 sums then
/// differ in their last bits).
ProbeRow probe(const model::Model& model, const ProbeIdentity& identity, std::int64_t step,
               kernels::Communicator& communicator, const ProbeOptions& options = {});
/// In a process alone.
ProbeRow probe(const model::Model& model, const ProbeIdentity& identity, std::int64_t step = 0);

}  // namespace routescope::analysis
