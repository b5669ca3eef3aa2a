#include "analysis/probe/closed_form.h"

#include <vector>

#include "tests/analysis/probe/probe_of.h"
#include "tests/analysis/probe/wrapped.h"

namespace routescope::testing {
namespace {

TEST(ClosedForm, HoldsForWrappedModelsInEveryArithmetic) {
  expect_closed_form({}, "f32");
  expect_closed_form({.storage = kernels::DType::f64, .operands = kernels::DType::f64}, "f64");
  expect_closed_form({.operands = kernels::DType::bf16}, "bf16 operands");
}

TEST(ClosedForm, IsWhatTheBiasesSayAndNothingElse) {
  const model::Model standard = micro_model(micro_config(model::Residual::standard, model::AttnResSource::block_sum));
  const model::Model wrapped = model::wrap(standard, model::Residual::block_attn_res, 3, 1.0);
  ASSERT_TRUE(analysis::has_closed_form(wrapped));
  const int last = wrapped.plan().num_routed() - 1;
  const std::size_t n = wrapped.plan().reads[static_cast<std::size_t>(last)].columns.size();
  const model::WrappedAlpha closed = model::wrapped_alpha(1.0, static_cast<std::int64_t>(n));
  std::vector<double> alpha(2 * n, closed.other);  // two tokens
  alpha[n - 1] = alpha[2 * n - 1] = closed.current;
  EXPECT_LT(analysis::closed_form_error(wrapped, last, alpha), 1e-15);
  alpha[n + 1] += 0.25;
  EXPECT_NEAR(analysis::closed_form_error(wrapped, last, alpha), 0.25, 1e-15);
  // A learned bias counts as it is, not as it began.
  wrapped.weights().reads[static_cast<std::size_t>(last)].bias.as<float>()[0] = 3;
  alpha[n + 1] -= 0.25;
  EXPECT_NEAR(analysis::closed_form_error(wrapped, last, alpha),
              model::wrapped_alpha(3.0, static_cast<std::int64_t>(n)).current - closed.current, 1e-15);
}

TEST(ClosedForm, IsOfModelsWhoseQueriesAreAllZero) {
  const model::ModelConfig config = micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum);
  model::Model untrained(config, {});
  untrained.initialize(1);
  EXPECT_TRUE(analysis::has_closed_form(untrained));
  EXPECT_LT(probe_of(untrained, micro_tokens(2, 6), {.controls = 0}).closed_form_error, 1e-6);
  const model::Model routed = micro_model(config);
  EXPECT_FALSE(analysis::has_closed_form(routed));
  EXPECT_TRUE(std::isnan(probe_of(routed, micro_tokens(2, 6), {.controls = 0}).closed_form_error));
  EXPECT_FALSE(
      analysis::has_closed_form(micro_model(micro_config(model::Residual::standard, model::AttnResSource::block_sum))));
}

}  // namespace
}  // namespace routescope::testing
