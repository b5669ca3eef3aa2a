#include "train/bench/card/traffic.h"

#include <cmath>
#include <exception>
#include <utility>

#include "model/pass/parameters.h"

namespace routescope::train {

namespace {

// Bytes of a call: every input read once (compare_logits: twice), every output written once. The f32 scalars of a token
// count, too.
double f32_bytes(std::int64_t elements) {
  return 4.0 * static_cast<double>(elements);
}

}  // namespace

TrafficBench::TrafficBench(const BenchShape& shape, const Timing& timing, Report report)
    : shape_(shape), timing_(timing), report_(std::move(report)), data_(shape) {}

void TrafficBench::measure(const std::string& name, const std::string& formula, double bytes, double aim,
                           const std::function<Call()>& make) {
  Traffic traffic{.name = name, .formula = formula, .bytes = bytes, .aim = aim, .seconds = 0, .error = {}};
  try {
    std::vector<Call> calls;
    for (int set = 0; set < input_sets(bytes, timing_); ++set) calls.push_back(make());
    traffic.seconds = device_seconds(data_.stream(), timing_, static_cast<int>(calls.size()),
                                     [&](int set) { calls[static_cast<std::size_t>(set)](); });
    data_.clear();
  } catch (const std::exception& error) {
    traffic.error = error.what();
    data_.clear();
  }
  results_.push_back(traffic);
  report_(traffic);
}

void TrafficBench::copies(double bytes) {
  const auto count = static_cast<std::int64_t>(bytes) / 2;
  const auto pair = [&] {
    return std::pair(data_.filled(kernels::DType::bf16, {count}, 1.0), data_.random(kernels::DType::bf16, {count}));
  };
  measure("copy (driver)", "2 b", 4.0 * static_cast<double>(count), 0, [&, this]() -> Call {
    return [this, tensors = pair()] { kernels::copy(tensors.first, tensors.second, data_.stream()); };
  });
  measure("cast bf16 to bf16", "2 b", 4.0 * static_cast<double>(count), 0, [&, this]() -> Call {
    return [this, tensors = pair()] { kernels::cast(tensors.first, tensors.second, data_.stream()); };
  });
}

void TrafficBench::dense() {
  elementwise();
  embedding();
  norms();
  attention_side();
  mlp_side();
  logits();
  optimizer();
}

void TrafficBench::elementwise() {
  const std::int64_t n = shape_.tokens() * shape_.model.hidden_size;
  measure("fill f32", "4", f32_bytes(n), forward_aim,
          [&, this]() -> Call { return [this, dst = real({n})] { kernels::fill(dst, 0.5, data_.stream()); }; });
  measure("add", "3 b", activation_bytes(3 * n), forward_aim, [&, this]() -> Call {
    return [this, dst = data_.random(shape_.activations, {n}), src = data_.random(shape_.activations, {n})] {
      kernels::add(dst, src, data_.stream());
    };
  });
}

void TrafficBench::embedding() {
  const std::int64_t d = shape_.model.hidden_size, vocab = shape_.model.vocab_size, tokens = shape_.tokens();
  // All input sets share the table and the ids: the table is far larger than the L2 cache.
  struct Table {
    kernels::Tensor weight, ids;
  };
  // The expected number of different ids. A draw of this size differs from it by less than 1 %.
  const double expected_rows =
      static_cast<double>(vocab) * (1 - std::pow(1 - 1 / static_cast<double>(vocab), static_cast<double>(tokens)));
  Table table;
  const auto shared = [&](kernels::DType dtype) {
    if (!table.weight) table = {data_.random(dtype, {vocab, d}), data_.ids(tokens, vocab)};
    return table;
  };
  measure("embedding_forward", "2 b d",
          (expected_rows / static_cast<double>(tokens) + 1) * activation_bytes(tokens * d) + f32_bytes(tokens),
          forward_aim, [&, this]() -> Call {
            return [this, t = shared(shape_.activations), out = output(d)] {
              kernels::embedding_forward(out, t.ids, t.weight, data_.stream());
            };
          });
  table = {};
  // No aim: the time includes the sort of the ids, which moves almost no bytes.
  measure("embedding_backward", "d (8 + b)",
          2 * expected_rows * f32_bytes(d) + activation_bytes(tokens * d) + f32_bytes(tokens), 0, [&, this]() -> Call {
            return [this, t = shared(kernels::DType::f32), dout = activation(d)] {
              kernels::embedding_backward(t.weight, dout, t.ids, data_.stream());
            };
          });
}

void TrafficBench::norms() {
  const std::int64_t d = shape_.model.hidden_size, tokens = shape_.tokens();
  const double eps = shape_.model.rms_norm_eps;
  measure("add_rms_norm_forward", "4 d b", activation_bytes(4 * tokens * d) + f32_bytes(tokens), forward_aim,
          [&, this]() -> Call {
            return [this, eps, x = output(d), p = output(d), inv_rms = real({tokens}), p_in = activation(d),
                    y = activation(d), gain = real({d})] {
              kernels::add_rms_norm_forward(x, p, inv_rms, p_in, y, gain, eps, data_.stream());
            };
          });
  measure("add_rms_norm_backward", "4 d b", activation_bytes(4 * tokens * d) + f32_bytes(tokens), backward_aim,
          [&, this]() -> Call {
            return [this, dp = activation(d), dgain = real({d}), dx = activation(d), p = activation(d),
                    inv_rms = constant({tokens}, 1.0), gain = real({d})] {
              kernels::add_rms_norm_backward(dp, dgain, dx, p, inv_rms, gain, data_.stream());
            };
          });
}

void TrafficBench::attention_side() {
  const kernels::AttentionShape shape = shape_.attention();
  const std::int64_t tokens = shape.tokens(), width = shape.packed_width(), head = shape.head_dim;
  const double theta = shape_.model.rope_theta, eps = shape_.model.rms_norm_eps;
  measure("qk_norm_rope_forward", "2 W b", activation_bytes(2 * tokens * width), forward_aim, [&, this]() -> Call {
    return [this, shape, theta, eps, out = output(width), qkv = activation(width), q = real({head}), k = real({head})] {
      kernels::qk_norm_rope_forward(out, qkv, q, k, shape, theta, eps, data_.stream());
    };
  });
  // v has no norm: the backward pass does not need its values.
  const std::int64_t moved = 3 * width - shape.kv_heads * head;
  measure("qk_norm_rope_backward", "(3 W - v) b", activation_bytes(tokens * moved), backward_aim, [&, this]() -> Call {
    return [this, shape, theta, eps, dqkv = output(width), dq = real({head}), dk = real({head}),
            dout = activation(width), qkv = activation(width), q = real({head}), k = real({head})] {
      kernels::qk_norm_rope_backward(dqkv, dq, dk, dout, qkv, q, k, shape, theta, eps, data_.stream());
    };
  });
}

void TrafficBench::mlp_side() {
  const std::int64_t f = shape_.model.intermediate_size, tokens = shape_.tokens();
  measure("swiglu_forward", "3 f b", activation_bytes(3 * tokens * f), forward_aim, [&, this]() -> Call {
    return
        [this, act = output(f), gate_up = activation(2 * f)] { kernels::swiglu_forward(act, gate_up, data_.stream()); };
  });
  measure("swiglu_backward", "5 f b", activation_bytes(5 * tokens * f), backward_aim, [&, this]() -> Call {
    return [this, dgate_up = output(2 * f), dact = activation(f), gate_up = activation(2 * f)] {
      kernels::swiglu_backward(dgate_up, dact, gate_up, data_.stream());
    };
  });
}

void TrafficBench::logits() {
  const std::int64_t vocab = shape_.model.vocab_size, rows = shape_.head_rows;
  const auto random_logits = [&] { return data_.random(shape_.activations, {rows, vocab}); };
  const double scalars = f32_bytes(2 * rows);
  measure("cross_entropy, loss only", "V b", activation_bytes(rows * vocab) + scalars, forward_aim,
          [&, this]() -> Call {
            return [this, nll = real({rows}), values = random_logits(), targets = data_.ids(rows, vocab)] {
              kernels::cross_entropy(nll, kernels::Tensor{}, values, targets, 0.0, data_.stream());
            };
          });
  // The model does this in place. Here the gradient goes to another tensor, so that the inputs do not change.
  measure("cross_entropy with gradient", "2 V b", activation_bytes(2 * rows * vocab) + scalars, forward_aim,
          [&, this]() -> Call {
            return [this, nll = real({rows}), values = random_logits(), gradient = random_logits(),
                    targets = data_.ids(rows, vocab)] {
              kernels::cross_entropy(nll, gradient, values, targets, 1.0, data_.stream());
            };
          });
  // Both rows are read twice, and rows of a large vocabulary do not fit into the cache (compare_logits.cu).
  measure("compare_logits", "4 V b", activation_bytes(4 * rows * vocab) + scalars, backward_aim, [&, this]() -> Call {
    return [this, kl = real({rows}), agree = real({rows}), intact = random_logits(), ablated = random_logits()] {
      kernels::compare_logits(kl, agree, intact, ablated, data_.stream());
    };
  });
  const std::int64_t tokens = shape_.tokens();
  measure("accumulate_loss", "4", f32_bytes(tokens), 0, [&, this]() -> Call {
    return [this, total = data_.filled(kernels::DType::f64, {1}, 0.0), nll = real({tokens})] {
      kernels::accumulate_loss(total, nll, data_.stream());
    };
  });
}

void TrafficBench::optimizer() {
  const std::int64_t n = model::ParameterLayout(shape_.model).total();
  measure("sum_of_squares", "4", f32_bytes(n), forward_aim, [&, this]() -> Call {
    return [this, total = data_.filled(kernels::DType::f64, {1}, 0.0), grads = real({n})] {
      kernels::sum_of_squares(total, grads, data_.stream());
    };
  });
  const kernels::AdamWParams params{
      .learning_rate = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .step = 10};
  measure("adamw", "28", f32_bytes(7 * n), forward_aim, [&, this]() -> Call {
    return [this, params, param = real({n}), m = real({n}), v = constant({n}, 1.0), grad = real({n}),
            scale = constant({1}, 1.0)] { kernels::adamw(param, m, v, grad, scale, params, data_.stream()); };
  });
  measure("cast f32 to bf16", "6", 6.0 * static_cast<double>(n), forward_aim, [&, this]() -> Call {
    return [this, dst = data_.filled(kernels::DType::bf16, {n}, 1.0), src = real({n})] {
      kernels::cast(dst, src, data_.stream());
    };
  });
}

}  // namespace routescope::train
