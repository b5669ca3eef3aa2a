// routescope-bench --device cuda.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/files/config.h"
#include "train/bench/bench_device.h"

namespace routescope::train {

struct CardBench {
  /// What can be measured, in this order.
  static const std::vector<std::string>& all_parts();

  model::ModelConfig model;  // the routed one; the standard one is the same with residual: standard
  std::int64_t sequence_length = 2048, batch = 16;
  std::int64_t accumulate = 16;  // passes in a training step
  std::int64_t rounds = 3;       // of training steps
  std::vector<std::string> reads{"fused",
                                 "auto"};  // of training steps, each against standard: as kernels.reads of a run
  bool graph = false;                      // training passes are recorded once and replayed
  bool tune_products = false;              // as kernels.tune_products of a run
  double copy_bytes = 2e9;                 // of the copy that the card's bandwidth is measured by
  Timing timing;
  std::vector<std::string> parts = all_parts();
  std::string json;  // a file for the results, rewritten after each part; empty: none
};

/// Measures part after part, printing as it goes. Returns how many measurements failed; each says why in its line.
/// Needs a CUDA device.
int bench_card(const CardBench& bench);

}  // namespace routescope::train
