// Routing snapshots: statistics of the routing on the fixed probe tokens of the run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/records/routing_rows.h"
#include "kernels/comm/communicator.h"
#include "model/pass/model.h"
#include "model/pass/pass.h"
#include "train/run/evaluate.h"
#include "train/run/probe_sequences.h"

namespace routescope::train {

class RoutingRecorder {
 public:
  /// Of sequences of `seq_len` tokens.
  RoutingRecorder(const model::Model& model, ProbeSequences probe, std::int64_t seq_len);

  /// The fixed part of the record.
  data::RoutingRecordInfo info(const std::string& config_yaml) const;

  /// Measures the model as it is now. Every rank measures its share of the probe tokens, and every rank returns the
  /// whole snapshot. `alpha`, if given, receives on rank 0 the weights of every token, [read, sequence, position,
  /// source] f32, NaN where a read has no such source; on other ranks it becomes empty. For a standard model the
  /// snapshot is empty.
  data::RoutingSnapshot snapshot(model::Pass& pass, kernels::Communicator& communicator, std::int64_t step,
                                 std::int64_t tokens_seen, std::vector<float>* alpha) const;

 private:
  /// Sums statistics over the tokens of `windows` into totals_; the weights of every token go to `alpha`
  /// [read, token, source], if given.
  void measure(model::Pass& pass, Windows windows, std::vector<float>* alpha) const;
  /// On rank 0 the weights [read, token, source] of all ranks' tokens, on other ranks nothing. `mine`: the rank's own.
  std::vector<float> gather_alpha(const std::vector<float>& mine, kernels::Communicator& communicator) const;
  void read_totals(data::RoutingSnapshot& out, const std::vector<double>& totals) const;
  void read_parameters(data::RoutingSnapshot& out) const;

  const model::Model* model_;
  ProbeSequences probe_;
  std::int64_t seq_len_, sequences_;
  // f64, by read: sums over tokens of alpha, alpha^2 and rms [3, n+1], then of the entropy [1].
  kernels::OwnedTensor totals_;
};

}  // namespace routescope::train
