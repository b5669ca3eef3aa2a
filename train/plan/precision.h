// precision: auto.
#pragma once

#include <optional>
#include <string>

#include "train/config/config.h"

namespace routescope::train {

/// Rates of this machine's matrix products (measure_matrix_rate), FLOP/s.
struct ProductRates {
  double f32 = 0, bf16 = 0;
};
/// Nothing where the processor has no products of bf16, so that there is nothing to choose.
std::optional<ProductRates> measure_product_rates(double seconds);

/// bf16 where its products are faster by more than a tenth: rounding their operands takes some of it, and f32 loses no
/// bits.
std::string faster_precision(const ProductRates& rates);

/// Resolves `auto`: what the run in config.run.dir began with; of a new run bf16 on CUDA, and on the CPU the faster one
/// here, measured for `seconds`, with a line in the log. Throws Error if the run's config.yaml cannot be read.
void resolve_precision(TrainConfig& config, double seconds = 0.3);

}  // namespace routescope::train
