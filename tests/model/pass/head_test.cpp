// The head takes its tokens in chunks where the logits of all of them would not fit. Chunks change nothing.
#include <gtest/gtest.h>

#include "kernels/ops.h"
#include "model/pass/pass.h"
#include "model/pass/pass_state.h"
#include "model/pass/sublayers.h"
#include "tests/model/pass/micro.h"

namespace routescope::model {
namespace {

constexpr std::int64_t kBatch = 2, kLength = 7, kTokens = kBatch * kLength;

/// What the head makes of the same x and targets, `rows` tokens at a time.
struct Head {
  Head(const Model& model, std::int64_t rows) {
    const ModelConfig& config = model.config();
    std::size_t bytes = 0;
    for (const auto& part : Pass::plan_memory(config, model.options(), kBatch, kLength, Pass::Kind::train, {}))
      bytes += part.bytes;
    PassState state(model, {kBatch, kLength, config.num_attention_heads, config.num_key_value_heads, config.head_dim},
                    true, {}, bytes);
    state.act.head_rows = rows;
    const kernels::Tensor x = state.at(state.last_read()).x;
    for (std::int64_t i = 0; i < x.numel(); ++i) micro::set_element(x, i, 0.1 * static_cast<double>(i % 17 - 8));
    const std::vector<std::int32_t> targets = micro::tokens(kTokens, config.vocab_size, 4);
    std::copy(targets.begin(), targets.end(), state.act.targets.as<std::int32_t>());

    kernels::OwnedTensor some(kernels::DType::f64, kernels::Device::cpu, {kTokens - 4, config.vocab_size});
    head_logits(state, 3, kTokens - 1, some.tensor);
    logits = kernels::host_values<double>(some.tensor, state.stream);
    forward_loss(state);
    loss = kernels::host_values<double>(state.act.nll, state.stream);

    kernels::OwnedTensor gradients(kernels::DType::f32, kernels::Device::cpu, {model.layout().total()});
    backward_head(state, 0.5, Weights(config, model.layout(), gradients.tensor));
    nll = kernels::host_values<double>(state.act.nll, state.stream);
    dx = kernels::host_values<double>(state.act.backward.dx, state.stream);
    dhead = kernels::host_values<double>(gradients.tensor, state.stream);
  }
  std::vector<double> logits, loss, nll, dx, dhead;
};

void expect_near(const std::vector<double>& found, const std::vector<double>& expected, const char* what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  double largest = 0;
  for (const double value : expected) largest = std::max(largest, std::abs(value));
  EXPECT_GT(largest, 0) << what;
  // Another order of sums of 14 tokens or of 8 columns.
  for (std::size_t i = 0; i < found.size(); ++i)
    EXPECT_NEAR(found[i], expected[i], 32 * 6e-8 * largest) << what << " " << i;
}

TEST(Head, ChunksOfAnyHeightGiveTheSame) {
  Model model(micro::config(micro::modes()[0]), {});
  micro::randomize(model, 9);
  const Head whole(model, kTokens);
  for (const std::int64_t rows : {1, 4, 13}) {
    const Head head(model, rows);
    expect_near(head.logits, whole.logits, "logits");
    expect_near(head.loss, whole.loss, "loss");
    expect_near(head.nll, whole.nll, "nll");
    expect_near(head.dx, whole.dx, "dx");
    expect_near(head.dhead, whole.dhead, "gradient of the head");
  }
}

}  // namespace
}  // namespace routescope::model
