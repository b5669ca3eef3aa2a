// Routing snapshots: what the routing does on the fixed probe tokens, the first windows of the validation stream.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/batches.h"
#include "data/routing_record.h"
#include "model/model.h"

namespace routescope {

class RoutingRecorder {
 public:
  /// The probe tokens are windows [0, sequences) of `valid`, which must have as many.
  RoutingRecorder(const Model& model, const Batches& valid, std::int64_t sequences, std::int64_t seq_len);

  /// The fixed part of the record.
  RoutingRecordInfo info(const std::string& config_yaml) const;

  /// Measures the model as it is now. `alpha`, if given, receives the weights token by token,
  /// [read, sequence, position, source] f32, NaN where a read has no such source. A standard model has nothing to
  /// measure.
  RoutingSnapshot snapshot(Pass& pass, std::int64_t step, std::int64_t tokens_seen, std::vector<float>* alpha) const;

 private:
  void read_parameters(RoutingSnapshot& out) const;

  const Model* model_;
  const Batches* valid_;
  std::int64_t sequences_, seq_len_;
  OwnedTensor totals_;  // f64, by read: sums over tokens of alpha, alpha^2 and rms [3, n+1], then of the entropy [1]
};

}  // namespace routescope
