// How long a training step will take on so many ranks: what computes, what travels, and how much of the travelling is
// not hidden behind computing. The formulae stand in train/README.md, "The plan".
#pragma once

#include <cstdint>

#include "train/config/config.h"
#include "train/plan/cluster.h"

namespace routescope::train {

/// Seconds of the parts of a step on one device.
struct ComputeTimes {
  double layer_forward = 0, layer_backward = 0;  // of one layer, one micro-batch
  double head = 0;    // logits, loss and all their gradients, one micro-batch: they fall into the backward pass
  double clear = 0;   // of one element of the gradients
  double update = 0;  // of one element that this rank updates: its norm, its moments, its copy as an operand

  double micro_batch(std::int64_t layers) const {
    return static_cast<double>(layers) * (layer_forward + layer_backward) + head;
  }
};

/// By the rates that a cluster is described with.
ComputeTimes described_times(const TrainConfig& config, const Cluster& cluster);

struct StepForecast {
  std::int64_t ranks = 1, nodes = 1;
  std::int64_t passes = 0;  // micro-batches of the rank that has most of them

  // Bytes that one rank sends.
  double reduce_scatter_bytes = 0;  // gradients of matrices, f32
  double all_gather_bytes = 0;      // parameters as passes use them; distributed.zero=0: gradients, f32
  double vector_bytes = 0;          // gradients of gains, biases and queries, f32
  double exchange_bytes = 0;        // host values
  double bytes() const { return reduce_scatter_bytes + all_gather_bytes + vector_bytes + exchange_bytes; }

  // Seconds.
  double compute = 0;                                     // forward and backward passes of the slowest rank
  double update = 0;                                      // of gradients and parameters, on every rank
  double reduce_scatter = 0, reduce_scatter_exposed = 0;  // all of it; what the last backward pass does not hide
  double all_gather = 0, all_gather_exposed = 0;          // all of it; what the next forward pass waits for
  double vectors = 0, exchange = 0;                       // nothing hides these
  double exposed() const { return reduce_scatter_exposed + all_gather_exposed + vectors + exchange; }
  double step() const { return compute + update + exposed(); }
};

/// `ranks` of at most as many as a step has micro-batches.
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
