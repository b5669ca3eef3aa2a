// routescope-bench --device cuda: the card's copy bandwidth, and every operation that is limited by memory as a share
// of it; attention and matrix products; whole training steps of a routed model against a standard one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/files/config.h"
#include "train/bench/card/device.h"

namespace routescope::train {

struct CardBench {
  /// The parts that can be measured, in this order.
  static const std::vector<std::string>& all_parts();

  model::ModelConfig model;  // the routed one; the standard one is the same with residual: standard
  std::int64_t sequence_length = 2048, batch = 16;
  std::int64_t accumulate = 16;  // passes in a training step
  std::int64_t rounds = 3;       // of training steps
  // Values of kernels.reads; training steps are measured with each, against the standard model.
  std::vector<std::string> reads{"fused", "auto"};
  bool graph = false;          // training passes are recorded once and replayed
  bool tune_products = false;  // as kernels.tune_products of a run
  double copy_bytes = 2e9;     // size of the copy that measures the card's bandwidth
  Timing timing;
  std::vector<std::string> parts = all_parts();
  std::string json;  // a file for the results, rewritten after each part; empty: none
};

/// Measures and prints one part after another. Returns how many measurements failed; the line of each says why. Needs a
/// CUDA device.
int bench_card(const CardBench& bench);

}  // namespace routescope::train
