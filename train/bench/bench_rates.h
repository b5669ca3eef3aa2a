// The operations that are limited by arithmetic, on a CUDA device: attention and the model's matrix products.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "train/bench/bench_device.h"

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

/// Forward and backward by every implementation that the build has. Counted are the products over the (T + 1) / 2
/// positions that a query sees on average: 2 forward, and 5 backward, since q k^T has to be formed again (as the
/// literature on flash attention counts; train/throughput.h's model FLOPs leave the repetition out).
std::vector<Rate> attention_rates(const BenchShape& shape, const Timing& timing, const RateReport& report);

/// Every product of a pass: operands of shape.activations, results in the same type, gradients of weights added in f32.
std::vector<Rate> product_rates(const BenchShape& shape, const Timing& timing, const RateReport& report);

/// FLOP/s of all of them together, each as often as a pass does it. 0 if one could not be measured.
double combined_rate(const std::vector<Rate>& rates);

}  // namespace routescope::train
