// The wrapped model's routing against its closed form, on real text.
#include "model/wrap/wrap.h"

#include <gtest/gtest.h>

#include <cmath>

#include "data/base/files.h"
#include "kernels/ops.h"
#include "model/pass/pass.h"
#include "tests/model/pass/micro.h"
#include "tests/places.h"

namespace routescope::model {
namespace {

/// The first bytes of a document of this repository, as byte tokens.
TokenBatch real_text(std::int64_t sequences, std::int64_t seq_len) {
  const std::string text = data::read_text(std::filesystem::path(testing::source_dir()) / "LICENSE");
  TokenBatch batch{.sequences = sequences, .seq_len = seq_len, .ids = {}};
  for (std::int64_t i = 0; i < sequences * seq_len; ++i)
    batch.ids.push_back(static_cast<unsigned char>(text.at(static_cast<std::size_t>(i))));
  return batch;
}

Model standard_model() {
  ModelConfig config = micro::config(micro::modes()[0]);
  config.vocab_size = 257;
  config.hidden_size = 32;
  config.num_hidden_layers = 6;
  Model model(config, {});
  micro::randomize(model, 3);
  return model;
}

TEST(Wrap, AlphaEqualsTheClosedForm) {
  const Model standard = standard_model();
  const TokenBatch text = real_text(4, 64);
  for (Residual residual : {Residual::block_attn_res, Residual::full_attn_res}) {
    double last = INFINITY;
    for (double b : {0.0, 1.0, 3.0, 10.0}) {
      const WrapComparison c = compare_wrapped(wrap(standard, residual, 3, b), standard, text);
      std::printf("%s b %g: alpha error %.1e, logits differ by %.1e of the largest\n", to_string(residual).c_str(), b,
                  c.alpha_error, c.logit_difference);
      EXPECT_LT(c.alpha_error, 1e-6) << b;
      EXPECT_LT(c.logit_difference, last) << b;  // tends to the standard model as b grows
      last = c.logit_difference;
    }
    EXPECT_LT(compare_wrapped(wrap(standard, residual, 3, 60.0), standard, text).logit_difference, 1e-5);
  }
}

TEST(Wrap, ClosedForm) {
  EXPECT_DOUBLE_EQ(wrapped_alpha(0, 4).current, 0.25);
  EXPECT_DOUBLE_EQ(wrapped_alpha(0, 4).other, 0.25);
  EXPECT_NEAR(wrapped_alpha(3, 2).current, std::exp(3.0) / (std::exp(3.0) + 1), 1e-15);
  EXPECT_EQ(wrapped_alpha(5, 1).current, 1.0);
  EXPECT_EQ(wrapped_alpha(800, 3).current, 1.0);
}

TEST(Wrap, NllIsTheMeanOverPredictedTokens) {
  const Model standard = standard_model();
  const TokenBatch text = real_text(3, 16);
  const WrapComparison c = compare_wrapped(wrap(standard, Residual::full_attn_res, 3, 60.0), standard, text);
  Pass pass(standard, 1, 16, Pass::Kind::infer);
  double sum = 0;
  for (std::int64_t s = 0; s < 3; ++s) {
    pass.forward(text.sequence(s));
    sum += pass.loss(text.targets(s));
  }
  EXPECT_NEAR(c.nll_standard, sum / (3 * 15), 1e-5);
  EXPECT_NEAR(c.nll_wrapped, sum / (3 * 15), 1e-3);
}

// The wrapped model computes with the weights that it was given, not with those that it was made with.
TEST(Wrap, Bf16OperandsAreThoseOfTheStandardModel) {
  const Model plain = standard_model();
  Model standard(plain.config(), {.operands = kernels::DType::bf16});
  kernels::copy(standard.flat(), plain.flat(), kernels::Stream{});
  standard.refresh_operands();
  const TokenBatch text = real_text(1, 16);
  const WrapComparison c = compare_wrapped(wrap(standard, Residual::full_attn_res, 3, 60.0), standard, text);
  EXPECT_LT(c.logit_difference, 1e-2);  // rounding of operands to 8 bits
}

TEST(Wrap, OnlyStandardModelsAreWrapped) {
  Model routed(micro::config(micro::modes()[1]), {});
  EXPECT_ANY_THROW(wrap(routed, Residual::block_attn_res, 2, 1.0));
}

}  // namespace
}  // namespace routescope::model
