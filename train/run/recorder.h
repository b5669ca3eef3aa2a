// Routing snapshots: what the routing does on the fixed probe tokens, the first windows of the validation stream.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/records/routing_rows.h"
#include "data/tokens/batches.h"
#include "kernels/comm/communicator.h"
#include "model/pass/model.h"
#include "model/pass/pass.h"

namespace routescope::train {

class RoutingRecorder {
 public:
  /// The probe tokens are windows [0, sequences) of `valid`, which must have as many.
  RoutingRecorder(const model::Model& model, const data::Batches& valid, std::int64_t sequences, std::int64_t seq_len);

  /// The fixed part of the record.
  data::RoutingRecordInfo info(const std::string& config_yaml) const;

  /// Measures the model as it is now; every rank takes its share of the probe tokens. The snapshot is every rank's;
  /// `alpha`, if given, receives on rank 0 the weights token by token, [read, sequence, position, source] f32, NaN
  /// where a read has no such source, and nothing on other ranks. A standard model has nothing to measure.
  data::RoutingSnapshot snapshot(model::Pass& pass, kernels::Communicator& communicator, std::int64_t step,
                                 std::int64_t tokens_seen, std::vector<float>* alpha) const;

 private:
  /// On rank 0 the weights [read, token, source] of all ranks' tokens, from each one's own.
  std::vector<float> gather_alpha(const std::vector<float>& mine, std::size_t reads, std::size_t columns,
                                  kernels::Communicator& communicator) const;
  void read_parameters(data::RoutingSnapshot& out) const;

  const model::Model* model_;
  const data::Batches* valid_;
  std::int64_t sequences_, seq_len_;
  kernels::OwnedTensor
      totals_;  // f64, by read: sums over tokens of alpha, alpha^2 and rms [3, n+1], then of the entropy [1]
};

}  // namespace routescope::train
