// Measuring operations that are limited by arithmetic: attention and the model's matrix products.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "train/bench/card/device.h"

namespace routescope::train {

/// One operation at one shape.
struct Rate {
  std::string name;
  double flops = 0;        // of one call, a multiply-add counting as two
  std::int64_t count = 1;  // calls in a forward and backward pass
  double seconds = 0;      // of one call
  std::string error;       // why it could not be measured

  double flops_per_second() const { return seconds > 0 ? flops / seconds : 0; }
};

using RateReport = std::function<void(const Rate&)>;

/// Attention forward and backward, by every implementation in the build. The FLOPs are those of products over the
/// (T + 1) / 2 positions that a query sees on average: 2 forward and 5 backward, because q k^T is computed again. The
/// literature on flash attention counts like this; the model FLOPs of train/plan/throughput.h leave the repetition out.
std::vector<Rate> attention_rates(const BenchShape& shape, const Timing& timing, const RateReport& report);

/// Every product of a pass. Operands and results are of type shape.activations; gradients of weights are added in f32.
std::vector<Rate> product_rates(const BenchShape& shape, const Timing& timing, const RateReport& report);

/// FLOP/s of all of them together, each counted as often as a pass calls it. 0 if one could not be measured.
double combined_rate(const std::vector<Rate>& rates);

}  // namespace routescope::train
