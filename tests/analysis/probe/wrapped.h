// Claim 1, for any device and arithmetic: whatever the tokens, a wrapped model's weights are the closed form of its
// bias.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "analysis/probe/probe.h"
#include "model/wrap/wrap.h"
#include "tests/analysis/probe/micro_model.h"
#include "tests/analysis/probe/probe_of.h"

namespace routescope::testing {

inline void expect_closed_form(const model::ModelOptions& options, const char* arithmetic) {
  // A softmax in f32 of at most 9 sources: an exponential, 9 additions and a division, each within 2^-24 of a weight of
  // at most 1; the bias of 12 is exact.
  constexpr double rounding = 16 * 0x1p-24;
  const analysis::ProbeTokens tokens = micro_tokens(3, 8);
  const model::Model standard =
      micro_model(micro_config(model::Residual::standard, model::AttnResSource::block_sum, 4), options);
  double largest_error = 0, largest_variance = 0;
  for (const model::Residual residual : {model::Residual::block_attn_res, model::Residual::full_attn_res}) {
    for (const std::int64_t blocks : {1, 2, 3}) {
      if (residual == model::Residual::full_attn_res && blocks > 1) continue;  // which has no blocks
      for (const double bias : {-1.5, 0.0, 2.5, 12.0}) {
        const model::Model wrapped = model::wrap(standard, residual, blocks, bias);
        const analysis::ProbeRow row = probe_of(
            wrapped, tokens, {.ablations = {analysis::Ablation::mask, analysis::Ablation::freeze}, .controls = 0});
        largest_error = std::max(largest_error, row.closed_form_error);
        EXPECT_LE(row.closed_form_error, rounding)
            << model::to_string(residual) << " " << blocks << " blocks, bias " << bias;
        for (const double variance : row.alpha_variance) {
          if (std::isnan(variance)) continue;  // of a column that the read lacks
          largest_variance = std::max(largest_variance, variance);
          EXPECT_LE(variance, rounding * rounding);
        }
        // In the same table as any model: masks have effects, and weights that never vary can be frozen.
        const analysis::AblationEffects &mask = row.effects(analysis::Ablation::mask),
                                        &freeze = row.effects(analysis::Ablation::freeze);
        double most = 0;
        for (std::size_t s = 0; s < mask.sets.size(); ++s) {
          if (mask.sets[s].coverage > 0) most = std::max(most, std::abs(mask.sets[s].delta_nll.value));
          // bf16 has a sublayer's input to 2^-8: a last bit of it may turn with a last bit of h.
          if (freeze.sets[s].coverage > 0 && options.operands != kernels::DType::bf16) {
            EXPECT_NEAR(freeze.sets[s].delta_nll.value, 0, 1e-5);
          }
        }
        EXPECT_GT(most, 1e-4);
      }
    }
  }
  std::printf("%s: alpha within %.1e of the closed form, content variance at most %.1e\n", arithmetic, largest_error,
              largest_variance);
}

}  // namespace routescope::testing
