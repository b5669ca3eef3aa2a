// Every backward operation of the reference against finite differences of its forward operation. The loss is the inner
// product of the outputs with fixed random weights, so the weights are the gradient that goes in. Gradients that are
// added to start from random numbers, which are taken off again.
#include <gtest/gtest.h>

#include "tests/kernels/finite_differences.h"

namespace routescope::testing {
namespace {

const kernels::Stream kStream;

/// A "+=" gradient: starts from random numbers, and gives what was added to them.
class Added {
 public:
  explicit Added(const std::vector<std::int64_t>& shape, std::uint64_t stream)
      : start_(random_values(shape, stream)), now_(random_values(shape, stream)) {}
  // NOLINTNEXTLINE(google-explicit-constructor): operations take it as a tensor
  operator const kernels::Tensor&() const { return now_.tensor(); }
  const kernels::Tensor& sum() {
    for (std::int64_t i = 0; i < now_.tensor().numel(); ++i) now_.data()[i] -= start_.data()[i];
    return now_.tensor();
  }

 private:
  Values start_;
  Values now_;
};

TEST(Gradients, Embedding) {
  const std::int64_t tokens = 6, vocabulary = 4, d = 3;
  kernels::OwnedTensor ids(kernels::DType::i32, kernels::Device::cpu, {tokens});
  for (std::int32_t t = 0; t < tokens; ++t)
    ids.tensor.as<std::int32_t>()[t] = t * t % 3;  // repeats 0 and 1, leaves 2 and 3 out
  const Values weight = random_values({vocabulary, d}, 1), out = zeros({tokens, d}),
               dout = random_values({tokens, d}, 2);
  const auto loss = [&] {
    kernels::embedding_forward(out, ids.tensor, weight, kStream);
    return inner_product(out, dout);
  };
  Added dweight({vocabulary, d}, 3);
  kernels::embedding_backward(dweight, dout, ids.tensor, kStream);
  EXPECT_TRUE(is_gradient("weight", loss, weight, dweight.sum()));
}

TEST(Gradients, AddRmsNorm) {
  const std::int64_t tokens = 3, d = 5;
  const Values p_in = random_values({tokens, d}, 1), y = random_values({tokens, d}, 2);
  const Values gain = random_values({d}, 3, 0.3, 1), dx = random_values({tokens, d}, 4);
  const Values x = zeros({tokens, d}), p = zeros({tokens, d}), inv_rms = zeros({tokens});
  const auto loss = [&] {
    kernels::add_rms_norm_forward(x, p, inv_rms, p_in, y, gain, 1e-6, kStream);
    return inner_product(x, dx);
  };
  loss();
  Added dp({tokens, d}, 5), dgain({d}, 6);
  kernels::add_rms_norm_backward(dp, dgain, dx, p, inv_rms, gain, kStream);
  EXPECT_TRUE(is_gradient("gain", loss, gain, dgain.sum()));
  const kernels::Tensor& through = dp.sum();
  EXPECT_TRUE(is_gradient("p_in", loss, p_in, through));
  EXPECT_TRUE(is_gradient("y", loss, y, through));
}

/// The gradient of a product is two products; which transposes they take is what a model has to get right.
TEST(Gradients, MatmulInEveryTransposition) {
  const std::int64_t m = 3, n = 4, k = 5;
  for (const kernels::Transpose ta : {kernels::Transpose::no, kernels::Transpose::yes}) {
    for (const kernels::Transpose tb : {kernels::Transpose::no, kernels::Transpose::yes}) {
      const bool a_turned = ta == kernels::Transpose::yes, b_turned = tb == kernels::Transpose::yes;
      const std::vector<std::int64_t> a_shape{a_turned ? k : m, a_turned ? m : k},
          b_shape{b_turned ? n : k, b_turned ? k : n};
      const Values a = random_values(a_shape, 1), b = random_values(b_shape, 2), c = zeros({m, n});
      const Values dc = random_values({m, n}, 3);
      const auto loss = [&] {
        kernels::matmul(c, a, ta, b, tb, false, kStream);
        return inner_product(c, dc);
      };
      Added da(a_shape, 4), db(b_shape, 5);
      const kernels::Transpose not_tb = b_turned ? kernels::Transpose::no : kernels::Transpose::yes,
                               not_ta = a_turned ? kernels::Transpose::no : kernels::Transpose::yes;
      if (a_turned) {
        kernels::matmul(da, b, tb, dc, kernels::Transpose::yes, true, kStream);
      } else {
        kernels::matmul(da, dc, kernels::Transpose::no, b, not_tb, true, kStream);
      }
      if (b_turned) {
        kernels::matmul(db, dc, kernels::Transpose::yes, a, ta, true, kStream);
      } else {
        kernels::matmul(db, a, not_ta, dc, kernels::Transpose::no, true, kStream);
      }
      EXPECT_TRUE(is_gradient("a", loss, a, da.sum())) << a_turned << b_turned;
      EXPECT_TRUE(is_gradient("b", loss, b, db.sum())) << a_turned << b_turned;
    }
  }
}

TEST(Gradients, QkNormRope) {
  const kernels::AttentionShape shape{.batch = 2, .seq_len = 3, .heads = 4, .kv_heads = 2, .head_dim = 6};
  const std::vector<std::int64_t> packed{shape.tokens(), shape.packed_width()};
  const Values qkv = random_values(packed, 1), out = zeros(packed), dout = random_values(packed, 2);
  const Values q_gain = random_values({shape.head_dim}, 3, 0.3, 1), k_gain = random_values({shape.head_dim}, 4, 0.3, 1);
  // A small base turns every pair of channels by angles of order 1 within three positions.
  const double theta = 10, eps = 1e-6;
  const auto loss = [&] {
    kernels::qk_norm_rope_forward(out, qkv, q_gain, k_gain, shape, theta, eps, kStream);
    return inner_product(out, dout);
  };
  const Values dqkv = random_values(packed, 5);
  Added dq_gain({shape.head_dim}, 6), dk_gain({shape.head_dim}, 7);
  kernels::qk_norm_rope_backward(dqkv, dq_gain, dk_gain, dout, qkv, q_gain, k_gain, shape, theta, eps, kStream);
  EXPECT_TRUE(is_gradient("qkv", loss, qkv, dqkv));
  EXPECT_TRUE(is_gradient("q_gain", loss, q_gain, dq_gain.sum()));
  EXPECT_TRUE(is_gradient("k_gain", loss, k_gain, dk_gain.sum()));

  // In place, as the declaration allows.
  const Values in_place = random_values(packed, 2);
  kernels::qk_norm_rope_backward(in_place, dq_gain, dk_gain, in_place, qkv, q_gain, k_gain, shape, theta, eps, kStream);
  EXPECT_EQ(values_of(in_place), values_of(dqkv));
}

TEST(Gradients, Attention) {
  for (const std::int64_t kv_heads : {1, 2, 4}) {
    const kernels::AttentionShape shape{.batch = 2, .seq_len = 5, .heads = 4, .kv_heads = kv_heads, .head_dim = 4};
    const std::vector<std::int64_t> packed{shape.tokens(), shape.packed_width()};
    const std::vector<std::int64_t> wide{shape.tokens(), shape.heads * shape.head_dim};
    const Values qkv = random_values(packed, 1), out = zeros(wide), dout = random_values(wide, 2);
    const Values lse = zeros({shape.batch, shape.heads, shape.seq_len});
    const auto loss = [&] {
      kernels::attention_forward(out, lse, qkv, shape, kStream);
      return inner_product(out, dout);
    };
    loss();
    const Values dqkv = random_values(packed, 3);
    kernels::attention_backward(dqkv, dout, out, lse, qkv, shape, kStream);
    EXPECT_TRUE(is_gradient("qkv", loss, qkv, dqkv)) << kv_heads << " key/value heads";
  }
}

/// lse is what the backward pass and nothing else reads; that it is the log-sum-exp is checked for itself.
TEST(Gradients, AttentionOfOneKeyIsItsValue) {
  const kernels::AttentionShape shape{.batch = 1, .seq_len = 1, .heads = 2, .kv_heads = 1, .head_dim = 4};
  const Values qkv = random_values({1, shape.packed_width()}, 1), out = zeros({1, 8}), lse = zeros({1, 2, 1});
  kernels::attention_forward(out, lse, qkv, shape, kStream);
  for (std::int64_t head = 0; head < 2; ++head) {
    double dot = 0;
    for (std::int64_t e = 0; e < 4; ++e) {
      EXPECT_DOUBLE_EQ(out.data()[head * 4 + e], qkv.data()[12 + e]);
      dot += qkv.data()[head * 4 + e] * qkv.data()[8 + e];
    }
    EXPECT_NEAR(lse.data()[head], dot / 2, 1e-14);
  }
}

TEST(Gradients, Swiglu) {
  const std::int64_t tokens = 3, f = 4;
  const Values gate_up = random_values({tokens, 2 * f}, 1, 2), act = zeros({tokens, f}),
               dact = random_values({tokens, f}, 2);
  const auto loss = [&] {
    kernels::swiglu_forward(act, gate_up, kStream);
    return inner_product(act, dact);
  };
  const Values dgate_up = random_values({tokens, 2 * f}, 3);
  kernels::swiglu_backward(dgate_up, dact, gate_up, kStream);
  EXPECT_TRUE(is_gradient("gate_up", loss, gate_up, dgate_up));
}

TEST(Gradients, CrossEntropy) {
  const std::int64_t tokens = 4, vocabulary = 5;
  const Values logits = random_values({tokens, vocabulary}, 1, 2), nll = zeros({tokens});
  kernels::OwnedTensor targets(kernels::DType::i32, kernels::Device::cpu, {tokens});
  const std::int32_t chosen[tokens] = {4, 0, -1, 2};  // the third is not predicted
  std::copy(chosen, chosen + tokens, targets.tensor.as<std::int32_t>());
  const double grad_scale = 0.25;
  const auto loss = [&] {
    kernels::cross_entropy(nll, kernels::Tensor(), logits, targets.tensor, 1, kStream);
    double sum = 0;
    for (std::int64_t t = 0; t < tokens; ++t) sum += nll.data()[t];
    return grad_scale * sum;
  };
  const Values dlogits = random_values({tokens, vocabulary}, 2);
  kernels::cross_entropy(nll, dlogits, logits, targets.tensor, grad_scale, kStream);
  EXPECT_TRUE(is_gradient("logits", loss, logits, dlogits));
  EXPECT_EQ(nll.data()[2], 0);
}

/// AdamW's first step is -lr sign(g) for gradients much larger than eps, whatever the betas; decay is on the parameter.
TEST(Gradients, AdamWFirstStep) {
  const Values param = random_values({6}, 1), start = random_values({6}, 1), grad = random_values({6}, 2);
  const Values m = zeros({6}), v = zeros({6});
  const Values scale({1}, {0.5});
  kernels::adamw(param, m, v, grad, scale,
                 {.learning_rate = 0.1, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-12, .weight_decay = 0.2, .step = 1},
                 kStream);
  for (int i = 0; i < 6; ++i) {
    const double expected = start.data()[i] - 0.1 * (std::copysign(1.0, grad.data()[i]) + 0.2 * start.data()[i]);
    EXPECT_NEAR(param.data()[i], expected, 1e-10);
  }
}

TEST(Gradients, SumOfSquaresIsAdded) {
  const Values values({2}, {3, 4}), total({1}, {11});
  kernels::sum_of_squares(total, values, kStream);
  EXPECT_DOUBLE_EQ(total.data()[0], 36);
}

TEST(Gradients, CompareLogits) {
  const Values p({2, 3}, {0, std::log(2.0), 0, 1, 1, 0}), q({2, 3}, {0, 0, 0, 1, 2, 0}), kl = zeros({2}),
                                                                                         agree = zeros({2});
  kernels::compare_logits(kl, agree, p, q, kStream);
  EXPECT_NEAR(kl.data()[0], 0.25 * std::log(0.75) * 2 + 0.5 * std::log(1.5), 1e-14);
  EXPECT_EQ(agree.data()[0], 0);  // q's first largest is token 0
  EXPECT_EQ(agree.data()[1], 0);  // p's first largest is token 0 (a tie), q's token 1
  kernels::compare_logits(kl, agree, p, p, kStream);
  EXPECT_EQ(kl.data()[0], 0);
  EXPECT_EQ(agree.data()[1], 1);
}

}  // namespace
}  // namespace routescope::testing
