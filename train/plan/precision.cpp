#include "train/plan/precision.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "train/config/run_directory.h"
#include "train/plan/throughput.h"

namespace routescope::train {

namespace {

bool multiplies_bf16_natively() {
#if defined(__x86_64__) && defined(__GNUC__)
  return __builtin_cpu_supports("avx512bf16") != 0;  // every processor with AMX-BF16 has it too
#else
  return false;
#endif
}

}  // namespace

std::optional<ProductRates> measure_product_rates(double seconds) {
  if (!multiplies_bf16_natively()) return std::nullopt;
  constexpr int rounds = 3;  // in turn, because other work on the machine comes and goes
  ProductRates best;
  for (int i = 0; i < rounds; ++i) {
    for (auto [rate, type] : {std::pair{&best.f32, kernels::DType::f32}, {&best.bf16, kernels::DType::bf16}}) {
      model::ModelOptions options;
      options.operands = type;
      *rate = std::max(*rate, measure_matrix_rate(options, seconds / (2 * rounds)));
    }
  }
  return best;
}

std::string faster_precision(const ProductRates& rates) {
  return rates.bf16 > 1.1 * rates.f32 ? "bf16" : "f32";
}

void resolve_precision(TrainConfig& config, double seconds) {
  if (config.precision != "auto") return;
  if (const auto held = held_config(config.run.dir)) {
    config.precision = held->precision;
    return;
  }
  config.precision = config.device == "cuda" ? "bf16" : "f32";
  if (config.device == "cuda") return;
  if (const std::optional<ProductRates> rates = measure_product_rates(seconds)) {
    config.precision = faster_precision(*rates);
    spdlog::info("precision: {} (products of f32 run at {:.0f} GFLOP/s here, of bf16 at {:.0f})", config.precision,
                 rates->f32 / 1e9, rates->bf16 / 1e9);
  }
}

}  // namespace routescope::train
