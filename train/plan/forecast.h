// A forecast of the time of a training step on several ranks: computation, communication, and the part of communication
// that computation does not hide. The formulas are in train/plan/README.md.
#pragma once

#include <cstdint>

#include "train/config/config.h"
#include "train/plan/cluster.h"

namespace routescope::train {

/// Seconds of the parts of a step on one device.
struct ComputeTimes {
  double layer_forward = 0, layer_backward = 0;  // of one layer, one micro-batch
  double head = 0;    // logits, loss and all their gradients, one micro-batch; part of the backward pass
  double clear = 0;   // clearing one element of the gradients
  double update = 0;  // updating one element: gradient norm, update rule, bf16 copy

  double micro_batch(std::int64_t layers) const {
    return static_cast<double>(layers) * (layer_forward + layer_backward) + head;
  }
};

/// The times that follow from a cluster's description.
ComputeTimes described_times(const TrainConfig& config, const Cluster& cluster);

struct StepForecast {
  std::int64_t ranks = 1, nodes = 1;
  std::int64_t passes = 0;  // micro-batches of the rank with the most of them

  // Bytes that one rank sends.
  double reduce_scatter_bytes = 0;  // gradients of matrices, f32
  double all_gather_bytes = 0;      // parameters as passes use them; distributed.zero=0: gradients, f32
  double vector_bytes = 0;          // gradients of gains, biases and queries, f32
  double exchange_bytes = 0;        // host values
  double bytes() const { return reduce_scatter_bytes + all_gather_bytes + vector_bytes + exchange_bytes; }

  // Seconds.
  double compute = 0;                                     // forward and backward passes of the slowest rank
  double update = 0;                                      // of gradients and parameters, on every rank
  double reduce_scatter = 0, reduce_scatter_exposed = 0;  // total; part that the last backward pass does not hide
  double all_gather = 0, all_gather_exposed = 0;          // total; part that the next forward pass waits for
  double vectors = 0, exchange = 0;                       // fully exposed
  double exposed() const { return reduce_scatter_exposed + all_gather_exposed + vectors + exchange; }
  double step() const { return compute + update + exposed(); }
};

/// `ranks` must not exceed the number of micro-batches of a step.
StepForecast forecast_step(const TrainConfig& config, const ComputeTimes& times, const Cluster& cluster,
                           std::int64_t ranks);

/// Elements of the matrices among the parameters.
struct ParameterCounts {
  std::int64_t embedding = 0;  // the embedding's
  std::int64_t layer = 0;      // one layer's matrices
  std::int64_t head = 0;       // the head's; 0 where it is the embedding
};
ParameterCounts count_parameters(const model::ModelConfig& config);

}  // namespace routescope::train
