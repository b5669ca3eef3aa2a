// The cases that hold backends against the reference: every operation over awkward shapes (one row, numbers of rows and
// columns that no vector length divides, few and many sources, one and many key/value heads).
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "tests/kernels/op_case.h"

namespace routescope::testing {

inline std::string label(const std::string& operation,
                         std::initializer_list<std::pair<const char*, std::int64_t>> values) {
  std::string out = operation;
  for (const auto& [name, value] : values) out += "_" + std::string(name) + std::to_string(value);
  return out;
}

/// Ids in [lowest, vocabulary), with repetitions.
inline std::vector<double> random_ids(std::int64_t count, std::int64_t lowest, std::int64_t vocabulary) {
  std::vector<double> out(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < out.size(); ++i) {
    const double u = kernels::to_uniform(kernels::random_words(kSeed, 99, i).word[0]);
    out[i] = std::floor(static_cast<double>(lowest) + u * static_cast<double>(vocabulary - lowest));
  }
  return out;
}

inline void add_basics(std::vector<OpCase>& cases) {
  for (const std::int64_t n : {1, 15, 70001}) {
    cases.push_back(OpCase(label("add", {{"n", n}}))
                        .input("src", Role::activation, {n})
                        .output("dst", Role::activation, {n}, 2)
                        .call([](const Tensors& r, const kernels::Stream& s) { kernels::add(r["dst"], r["src"], s); }));
    cases.push_back(OpCase(label("fill", {{"n", n}}))
                        .output("dst", Role::operand, {n}, 1)
                        .call([](const Tensors& r, const kernels::Stream& s) { kernels::fill(r["dst"], 0.3, s); }));
    cases.push_back(
        OpCase(label("cast", {{"n", n}}))
            .input("src", Role::real, {n})
            .output("dst", Role::operand, {n}, 1)
            .call([](const Tensors& r, const kernels::Stream& s) { kernels::cast(r["dst"], r["src"], s); }));
    cases.push_back(
        OpCase(label("random_normal", {{"n", n}}))
            .output("dst", Role::operand, {n}, 1)
            .call([](const Tensors& r, const kernels::Stream& s) { kernels::random_normal(r["dst"], 0.02, 7, 3, s); }));
    cases.push_back(OpCase(label("sum_of_squares", {{"n", n}}))
                        .input("values", Role::real, {n}, 3)
                        .output("total", Role::sums, {1}, static_cast<double>(n))
                        .limits({.tokens = n, .hidden_size = 1})
                        .call([](const Tensors& r, const kernels::Stream& s) {
                          kernels::sum_of_squares(r["total"], r["values"], s);
                        }));
    cases.push_back(
        OpCase(label("adamw", {{"n", n}}))
            .output("param", Role::real, {n}, 4)
            .output("exp_avg", Role::real, {n}, 4)
            .given("exp_avg_sq", Role::real, {n}, std::vector<double>(static_cast<std::size_t>(n), 0.01))
            .input("grad", Role::real, {n})
            .given("scale", Role::real, {1}, {0.7})
            .call([](const Tensors& r, const kernels::Stream& s) {
              const kernels::AdamWParams params{
                  .learning_rate = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .step = 3};
              kernels::adamw(r["param"], r["exp_avg"], r["exp_avg_sq"], r["grad"], r["scale"], params, s);
            }));
  }
}

inline void add_rows(std::vector<OpCase>& cases, std::int64_t tokens, std::int64_t d) {
  const kernels::WorkspaceLimits limits{.tokens = tokens, .hidden_size = d};
  const auto terms = static_cast<double>(d), rows = static_cast<double>(tokens);
  cases.push_back(OpCase(label("add_rms_norm_forward", {{"tokens", tokens}, {"d", d}}))
                      .input("p_in", Role::activation, {tokens, d})
                      .input("y", Role::activation, {tokens, d})
                      .input("gain", Role::real, {d}, 0.2, 1)
                      .output("x", Role::operand, {tokens, d}, terms)
                      .output("p", Role::activation, {tokens, d}, 2)
                      .output("inv_rms", Role::real, {tokens}, terms)
                      .call([](const Tensors& r, const kernels::Stream& s) {
                        kernels::add_rms_norm_forward(r["x"], r["p"], r["inv_rms"], r["p_in"], r["y"], r["gain"], 1e-6,
                                                      s);
                      }));
  cases.push_back(OpCase(label("add_rms_norm_in_place", {{"tokens", tokens}, {"d", d}}))
                      .input("y", Role::activation, {tokens, d})
                      .input("gain", Role::real, {d}, 0.2, 1)
                      .output("x", Role::operand, {tokens, d}, terms)
                      .output("p", Role::activation, {tokens, d}, 2)
                      .output("inv_rms", Role::real, {tokens}, terms)
                      .call([](const Tensors& r, const kernels::Stream& s) {
                        kernels::add_rms_norm_forward(r["x"], r["p"], r["inv_rms"], r["p"], r["y"], r["gain"], 1e-6, s);
                      }));
  cases.push_back(OpCase(label("add_rms_norm_backward", {{"tokens", tokens}, {"d", d}}))
                      .input("dx", Role::activation, {tokens, d})
                      .input("p", Role::activation, {tokens, d})
                      .input("inv_rms", Role::real, {tokens}, 0.1, 1)
                      .input("gain", Role::real, {d}, 0.2, 1)
                      .output("dp", Role::activation, {tokens, d}, terms)
                      .output("dgain", Role::real, {d}, rows)
                      .limits(limits)
                      .call([](const Tensors& r, const kernels::Stream& s) {
                        kernels::add_rms_norm_backward(r["dp"], r["dgain"], r["dx"], r["p"], r["inv_rms"], r["gain"],
                                                       s);
                      }));
  cases.push_back(OpCase(label("swiglu_forward", {{"tokens", tokens}, {"f", d}}))
                      .input("gate_up", Role::activation, {tokens, 2 * d}, 3)
                      .output("act", Role::operand, {tokens, d}, 2)
                      .call([](const Tensors& r, const kernels::Stream& s) {
                        kernels::swiglu_forward(r["act"], r["gate_up"], s);
                      }));
  cases.push_back(OpCase(label("swiglu_backward", {{"tokens", tokens}, {"f", d}}))
                      .input("gate_up", Role::activation, {tokens, 2 * d}, 3)
                      .input("dact", Role::activation, {tokens, d})
                      .output("dgate_up", Role::operand, {tokens, 2 * d}, 3)
                      .call([](const Tensors& r, const kernels::Stream& s) {
                        kernels::swiglu_backward(r["dgate_up"], r["dact"], r["gate_up"], s);
                      }));
}

inline void add_losses(std::vector<OpCase>& cases, std::int64_t tokens) {
  cases.push_back(
      OpCase(label("accumulate_loss", {{"tokens", tokens}}))
          .input("nll", Role::real, {tokens}, 1, 3)
          .output("total", Role::sums, {1}, static_cast<double>(tokens))
          .call([](const Tensors& r, const kernels::Stream& s) { kernels::accumulate_loss(r["total"], r["nll"], s); }));
}

inline void add_vocabulary(std::vector<OpCase>& cases, std::int64_t tokens, std::int64_t vocabulary, std::int64_t d) {
  add_losses(cases, tokens);
  const auto terms = static_cast<double>(vocabulary);
  cases.push_back(OpCase(label("embedding_forward", {{"tokens", tokens}, {"vocab", vocabulary}}))
                      .input("weight", Role::operand, {vocabulary, d})
                      .given("ids", Role::ids, {tokens}, random_ids(tokens, 0, vocabulary))
                      .output("out", Role::activation, {tokens, d}, 1)
                      .call([](const Tensors& r, const kernels::Stream& s) {
                        kernels::embedding_forward(r["out"], r["ids"], r["weight"], s);
                      }));
  cases.push_back(OpCase(label("embedding_backward", {{"tokens", tokens}, {"vocab", vocabulary}}))
                      .input("dout", Role::activation, {tokens, d})
                      .given("ids", Role::ids, {tokens}, random_ids(tokens, 0, vocabulary))
                      .output("dweight", Role::real, {vocabulary, d}, static_cast<double>(tokens))
                      .limits({.tokens = tokens, .hidden_size = d})
                      .call([](const Tensors& r, const kernels::Stream& s) {
                        kernels::embedding_backward(r["dweight"], r["dout"], r["ids"], s);
                      }));
  cases.push_back(OpCase(label("cross_entropy", {{"tokens", tokens}, {"vocab", vocabulary}}))
                      .input("logits", Role::activation, {tokens, vocabulary}, 3)
                      .given("targets", Role::ids, {tokens}, random_ids(tokens, -1, vocabulary))
                      .output("nll", Role::real, {tokens}, terms)
                      .output("dlogits", Role::operand, {tokens, vocabulary}, terms)
                      .call([](const Tensors& r, const kernels::Stream& s) {
                        kernels::cross_entropy(r["nll"], r["dlogits"], r["logits"], r["targets"], 0.25, s);
                      }));
  cases.push_back(OpCase(label("cross_entropy_in_place", {{"tokens", tokens}, {"vocab", vocabulary}}))
                      .given("targets", Role::ids, {tokens}, random_ids(tokens, -1, vocabulary))
                      .output("nll", Role::real, {tokens}, terms)
                      .output("logits", Role::activation, {tokens, vocabulary}, terms)
                      .call([](const Tensors& r, const kernels::Stream& s) {
                        kernels::cross_entropy(r["nll"], r["logits"], r["logits"], r["targets"], 0.25, s);
                      }));
  cases.push_back(OpCase(label("cross_entropy_loss_only", {{"tokens", tokens}, {"vocab", vocabulary}}))
                      .input("logits", Role::activation, {tokens, vocabulary}, 3)
                      .given("targets", Role::ids, {tokens}, random_ids(tokens, -1, vocabulary))
                      .output("nll", Role::real, {tokens}, terms)
                      .call([](const Tensors& r, const kernels::Stream& s) {
                        kernels::cross_entropy(r["nll"], kernels::Tensor(), r["logits"], r["targets"], 1, s);
                      }));
  cases.push_back(OpCase(label("compare_logits", {{"tokens", tokens}, {"vocab", vocabulary}}))
                      .input("intact", Role::activation, {tokens, vocabulary}, 2)
                      .input("ablated", Role::activation, {tokens, vocabulary}, 2)
                      .output("kl", Role::real, {tokens}, terms)
                      .output("agree", Role::real, {tokens}, 1)
                      .call([](const Tensors& r, const kernels::Stream& s) {
                        kernels::compare_logits(r["kl"], r["agree"], r["intact"], r["ablated"], s);
                      }));
}

inline void add_products(std::vector<OpCase>& cases, std::int64_t m, std::int64_t n, std::int64_t k) {
  for (const kernels::Transpose ta : {kernels::Transpose::no, kernels::Transpose::yes}) {
    for (const kernels::Transpose tb : {kernels::Transpose::no, kernels::Transpose::yes}) {
      for (const bool accumulate : {false, true}) {
        const bool a_turned = ta == kernels::Transpose::yes, b_turned = tb == kernels::Transpose::yes;
        const Role result = accumulate ? Role::real : Role::operand;
        cases.push_back(
            OpCase(label("matmul",
                         {{"m", m}, {"n", n}, {"k", k}, {"ta", a_turned}, {"tb", b_turned}, {"acc", accumulate}}))
                .input("a", Role::operand, {a_turned ? k : m, a_turned ? m : k})
                .input("b", Role::operand, {b_turned ? n : k, b_turned ? k : n})
                .output("c", result, {m, n}, static_cast<double>(k))
                .limits({.tokens = m, .product_k = k, .product_n = n})
                .call([=](const Tensors& r, const kernels::Stream& s) {
                  kernels::matmul(r["c"], r["a"], ta, r["b"], tb, accumulate, s);
                }));
      }
    }
  }
}

inline std::string attention_label(const char* operation, const kernels::AttentionShape& shape) {
  return label(operation, {{"batch", shape.batch},
                           {"seq", shape.seq_len},
                           {"heads", shape.heads},
                           {"kv", shape.kv_heads},
                           {"dim", shape.head_dim}});
}

/// Attention alone. With bf16 activations the weights and the gradients of the logits are rounded to bf16 for the
/// products that follow, at least on tensor cores: each term of those sums is off by up to 2^-9 of itself, which is
/// what rounds_on_the_way() allows for. The log-sum-exp comes before all that: add_attention_lse.
inline void add_attention_products(std::vector<OpCase>& cases, const kernels::AttentionShape& shape) {
  const std::int64_t tokens = shape.tokens(), width = shape.packed_width(), head_dim = shape.head_dim;
  const std::int64_t heads_of_a_key = shape.heads / shape.kv_heads;
  const kernels::WorkspaceLimits limits{.tokens = tokens, .attention = shape};
  const auto name = [&](const char* operation) { return attention_label(operation, shape); };
  const double reach = static_cast<double>(shape.seq_len + head_dim);
  cases.push_back(OpCase(name("attention"))
                      .input("qkv", Role::activation, {tokens, width})
                      .input("dout", Role::activation, {tokens, shape.heads * head_dim})
                      .output("out", Role::operand, {tokens, shape.heads * head_dim}, reach)
                      .output("lse", Role::real, {shape.batch, shape.heads, shape.seq_len}, reach)
                      .limits(limits)
                      .call([=](const Tensors& r, const kernels::Stream& s) {
                        kernels::attention_forward(r["out"], r["lse"], r["qkv"], shape, s);
                      })
                      .rounds_on_the_way());
  // The backward pass is held for itself: it takes any `out` and `lse`, also those of no forward pass.
  cases.push_back(OpCase(name("attention_backward"))
                      .input("qkv", Role::activation, {tokens, width})
                      .input("dout", Role::activation, {tokens, shape.heads * head_dim})
                      .input("out", Role::operand, {tokens, shape.heads * head_dim})
                      .input("lse", Role::real, {shape.batch, shape.heads, shape.seq_len}, 0.3, 4)
                      .output("dqkv", Role::activation, {tokens, width}, reach * static_cast<double>(heads_of_a_key))
                      .limits(limits)
                      .call([=](const Tensors& r, const kernels::Stream& s) {
                        kernels::attention_backward(r["dqkv"], r["dout"], r["out"], r["lse"], r["qkv"], shape, s);
                      })
                      .rounds_on_the_way());
}

/// The log-sum-exp of attention, in which only float's roundoff is allowed.
inline void add_attention_lse(std::vector<OpCase>& cases, const kernels::AttentionShape& shape) {
  const std::int64_t tokens = shape.tokens(), head_dim = shape.head_dim;
  cases.push_back(OpCase(attention_label("attention_lse", shape))
                      .input("qkv", Role::activation, {tokens, shape.packed_width()})
                      .input("out", Role::operand, {tokens, shape.heads * head_dim})
                      .output("lse", Role::real, {shape.batch, shape.heads, shape.seq_len},
                              static_cast<double>(shape.seq_len + head_dim))
                      .limits({.tokens = tokens, .attention = shape})
                      .call([=](const Tensors& r, const kernels::Stream& s) {
                        kernels::attention_forward(r["out"], r["lse"], r["qkv"], shape, s);
                      }));
}

inline void add_attention(std::vector<OpCase>& cases, const kernels::AttentionShape& shape) {
  const std::int64_t tokens = shape.tokens(), width = shape.packed_width(), head_dim = shape.head_dim;
  const kernels::WorkspaceLimits limits{.tokens = tokens, .attention = shape};
  const auto name = [&](const char* operation) { return attention_label(operation, shape); };
  const double theta = 1e6, eps = 1e-6;
  const double terms = static_cast<double>(head_dim), rows = static_cast<double>(tokens * shape.heads);
  cases.push_back(OpCase(name("qk_norm_rope_forward"))
                      .input("qkv", Role::activation, {tokens, width})
                      .input("q_gain", Role::real, {head_dim}, 0.2, 1)
                      .input("k_gain", Role::real, {head_dim}, 0.2, 1)
                      .output("out", Role::activation, {tokens, width}, terms)
                      .limits(limits)
                      .call([=](const Tensors& r, const kernels::Stream& s) {
                        kernels::qk_norm_rope_forward(r["out"], r["qkv"], r["q_gain"], r["k_gain"], shape, theta, eps,
                                                      s);
                      }));
  cases.push_back(OpCase(name("qk_norm_rope_backward"))
                      .input("qkv", Role::activation, {tokens, width})
                      .input("q_gain", Role::real, {head_dim}, 0.2, 1)
                      .input("k_gain", Role::real, {head_dim}, 0.2, 1)
                      .input("dout", Role::activation, {tokens, width})
                      .output("dqkv", Role::operand, {tokens, width}, terms)
                      .output("dq_gain", Role::real, {head_dim}, rows)
                      .output("dk_gain", Role::real, {head_dim}, rows)
                      .limits(limits)
                      .call([=](const Tensors& r, const kernels::Stream& s) {
                        kernels::qk_norm_rope_backward(r["dqkv"], r["dq_gain"], r["dk_gain"], r["dout"], r["qkv"],
                                                       r["q_gain"], r["k_gain"], shape, theta, eps, s);
                      }));
  add_attention_products(cases, shape);
}

}  // namespace routescope::testing
