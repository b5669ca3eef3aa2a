#include "train/bench/operations.h"

#include <algorithm>
#include <map>
#include <span>
#include <utility>

#include "kernels/memory.h"
#include "kernels/ops.h"
#include "train/bench/step/products.h"

namespace routescope::train {

namespace {

/// Tensors of random numbers, which live as long as one measurement, and the workspace.
class Bench {
 public:
  Bench(const model::Model& model, std::int64_t batch, std::int64_t seq_len)
      : model_(model),
        config_(model.config()),
        operand_(model.options().operands),
        tokens_(batch * seq_len),
        shape_{batch, seq_len, config_.num_attention_heads, config_.num_key_value_heads, config_.head_dim} {
    const std::int64_t widest = std::max({config_.hidden_size, shape_.packed_width(), 2 * config_.intermediate_size});
    const std::size_t bytes = kernels::workspace_bytes({.tokens = tokens_,
                                                        .hidden_size = widest,
                                                        .sources = model.plan().num_columns() + 1,
                                                        .product_k = std::max({widest, config_.vocab_size, tokens_}),
                                                        .product_n = std::max(widest, config_.vocab_size),
                                                        .attention = shape_},
                                                       kernels::Device::cpu);
    workspace_ = kernels::Buffer(bytes, kernels::Device::cpu);
    stream_ = {.workspace = static_cast<std::byte*>(workspace_.data()), .workspace_size = bytes};
  }

  double matrix_products(std::int64_t head_rows) const {
    double seconds = 0;
    for (const Product& product : products_of_step(config_, tokens_, head_rows)) {
      seconds += static_cast<double>(product.count) * matmul_seconds(product, operand_, stream_);
    }
    return seconds;
  }

  double attention() {
    const kernels::Tensor qkv = random(tokens_, shape_.packed_width());
    const kernels::Tensor dqkv = random(tokens_, shape_.packed_width()), dout = random(tokens_, heads_width());
    const kernels::Tensor out = operand(tokens_, heads_width()),
                          lse = random(shape_.batch, shape_.heads, shape_.seq_len);
    const double seconds = best_seconds([&] {
      kernels::attention_forward(out, lse, qkv, shape_, stream_);
      kernels::attention_backward(dqkv, dout, out, lse, qkv, shape_, stream_);
    });
    owned_.clear();
    return per_layer(seconds);
  }

  double qk_norm_rope() {
    const kernels::Tensor qkv = random(tokens_, shape_.packed_width()), raw = random(tokens_, shape_.packed_width());
    const kernels::Tensor dout = random(tokens_, shape_.packed_width()), dqkv = operand(tokens_, shape_.packed_width());
    const kernels::Tensor q_gain = random(config_.head_dim), k_gain = random(config_.head_dim);
    const kernels::Tensor dq_gain = random(config_.head_dim), dk_gain = random(config_.head_dim);
    const double seconds = best_seconds([&] {
      kernels::qk_norm_rope_forward(qkv, raw, q_gain, k_gain, shape_, config_.rope_theta, config_.rms_norm_eps,
                                    stream_);
      kernels::qk_norm_rope_backward(dqkv, dq_gain, dk_gain, dout, raw, q_gain, k_gain, shape_, config_.rope_theta,
                                     config_.rms_norm_eps, stream_);
    });
    owned_.clear();
    return per_layer(seconds);
  }

  double swiglu() {
    const std::int64_t f = config_.intermediate_size;
    const kernels::Tensor gate_up = random(tokens_, 2 * f), dact = random(tokens_, f);
    const kernels::Tensor act = operand(tokens_, f), dgate_up = operand(tokens_, 2 * f);
    const double seconds = best_seconds([&] {
      kernels::swiglu_forward(act, gate_up, stream_);
      kernels::swiglu_backward(dgate_up, dact, gate_up, stream_);
    });
    owned_.clear();
    return per_layer(seconds);
  }

  /// The residual additions and norms of reads that are not routed.
  double norms() {
    const auto count = std::ranges::count_if(model_.plan().reads, [](const model::Read& read) { return !read.routed; });
    const std::int64_t d = config_.hidden_size;
    const kernels::Tensor x = operand(tokens_, d), p = random(tokens_, d), p_in = random(tokens_, d),
                          y = random(tokens_, d);
    const kernels::Tensor dp = random(tokens_, d), dx = random(tokens_, d), inv_rms = random(tokens_);
    const kernels::Tensor gain = random(d), dgain = random(d);
    const double seconds = count == 0 ? 0 : best_seconds([&] {
      kernels::add_rms_norm_forward(x, p, inv_rms, p_in, y, gain, config_.rms_norm_eps, stream_);
      kernels::add_rms_norm_backward(dp, dgain, dx, p, inv_rms, gain, stream_);
    });
    owned_.clear();
    return static_cast<double>(count) * seconds;
  }

  /// Seconds of the AttnRes reads with their additions and norms, and seconds of the deferred gradients of sources.
  std::pair<double, double> reads() {
    std::map<std::size_t, int> by_sources;                        // n -> reads
    std::map<std::pair<std::size_t, std::size_t>, int> by_group;  // (n, reads in the group) -> groups
    std::size_t in_group = 0, sources = 0;
    const auto close_group = [&] {
      if (in_group > 0 && sources > 0) ++by_group[{sources, in_group}];
      in_group = 0;
    };
    for (const model::Read& read : model_.plan().reads) {
      if (!read.routed) continue;
      ++by_sources[read.sources.size()];
      if (read.first_of_group) close_group();
      sources = read.sources.size();
      ++in_group;
    }
    close_group();

    double read_seconds = 0, source_seconds = 0;
    for (const auto& [n, count] : by_sources) read_seconds += count * time_read(n);
    for (const auto& [group, count] : by_group) source_seconds += count * time_sources(group.first, group.second);
    return {read_seconds, source_seconds};
  }

  double cross_entropy_chunks(std::int64_t head_rows) {
    const kernels::Tensor logits = random(head_rows, config_.vocab_size), nll = random(head_rows);
    const kernels::Tensor dlogits = operand_ == kernels::DType::f32 ? logits : operand(head_rows, config_.vocab_size);
    const kernels::Tensor targets = ids(head_rows);
    const double seconds = best_seconds(
        [&] { kernels::cross_entropy(nll, dlogits, logits, targets, 1.0 / static_cast<double>(tokens_), stream_); });
    owned_.clear();
    return seconds * static_cast<double>(tokens_) / static_cast<double>(head_rows);
  }

  double embedding() {
    const kernels::Tensor weight = operand(config_.vocab_size, config_.hidden_size),
                          dweight = random(config_.vocab_size, config_.hidden_size);
    const kernels::Tensor out = random(tokens_, config_.hidden_size), tokens = ids(tokens_);
    const double seconds = best_seconds([&] {
      kernels::embedding_forward(out, tokens, weight, stream_);
      kernels::embedding_backward(dweight, out, tokens, stream_);
    });
    owned_.clear();
    return seconds;
  }

  /// Zeroing of the gradients, their squares, AdamW, and the parameters' copy as operands.
  double optimizer() {
    const std::int64_t n = model_.layout().total();
    const kernels::Tensor parameters = random(n), gradients = random(n), exp_avg = random(n), exp_avg_sq = random(n);
    kernels::fill(exp_avg_sq, 1.0, stream_);
    const kernels::Tensor scale = random(1), operands = operand(n, 1);
    const kernels::AdamWParams params{
        .learning_rate = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .step = 10};
    double squares = 0;
    const double seconds = best_seconds([&] {
      kernels::sum_of_squares(kernels::Tensor(&squares, kernels::DType::f64, kernels::Device::cpu, {1}), gradients,
                              stream_);
      kernels::adamw(parameters, exp_avg, exp_avg_sq, gradients, scale, params, stream_);
      if (operand_ != kernels::DType::f32) kernels::cast(operands, parameters, stream_);
      kernels::fill(gradients, 0.0, stream_);
    });
    owned_.clear();
    return seconds;
  }

 private:
  double per_layer(double seconds) const { return seconds * static_cast<double>(config_.num_hidden_layers); }
  std::int64_t heads_width() const { return shape_.heads * shape_.head_dim; }

  template <class... Extents>
  kernels::Tensor random(Extents... extents) {
    owned_.emplace_back(kernels::DType::f32, kernels::Device::cpu, std::initializer_list<std::int64_t>{extents...});
    kernels::random_normal(owned_.back().tensor, 1.0, 1, owned_.size(), kernels::Stream{});
    return owned_.back().tensor;
  }
  kernels::Tensor operand(std::int64_t rows, std::int64_t columns) {
    owned_.emplace_back(operand_, kernels::Device::cpu, std::initializer_list<std::int64_t>{rows, columns});
    return owned_.back().tensor;
  }
  kernels::Tensor ids(std::int64_t count) {
    owned_.emplace_back(kernels::DType::i32, kernels::Device::cpu, std::initializer_list<std::int64_t>{count});
    for (std::int64_t i = 0; i < count; ++i) {
      owned_.back().tensor.as<std::int32_t>()[i] = static_cast<std::int32_t>(i * 7919 % config_.vocab_size);
    }
    return owned_.back().tensor;
  }

  struct ReadTensors {
    std::vector<kernels::Tensor> values, inv_rms;
    kernels::AttnResState state;
    kernels::AttnResParams params;
  };
  ReadTensors read_tensors(std::size_t n) {
    const std::int64_t d = config_.hidden_size, columns = static_cast<std::int64_t>(n) + 1;
    ReadTensors read;
    for (std::size_t i = 0; i < n; ++i) {
      read.values.push_back(random(tokens_, d));
      read.inv_rms.push_back(random(tokens_));
      kernels::fill(read.inv_rms.back(), 1.0, stream_);
    }
    read.state = {.partial = random(tokens_, d),
                  .inv_rms = random(tokens_),
                  .score = random(tokens_, columns),
                  .alpha = random(tokens_, columns),
                  .h_inv_rms = random(tokens_)};
    read.params.query = random(d);
    read.params.key_gain = random(d);
    read.params.norm_gain = random(d);
    read.params.eps = config_.rms_norm_eps;
    return read;
  }

  double time_read(std::size_t n) {
    const std::int64_t d = config_.hidden_size;
    const ReadTensors read = read_tensors(n);
    const kernels::AttnResSources sources{read.values, read.inv_rms};
    const kernels::Tensor x = operand(tokens_, d), p_in = random(tokens_, d), y = random(tokens_, d),
                          dx = random(tokens_, d);
    const kernels::Tensor dh = random(tokens_, d), dp = random(tokens_, d),
                          dlogit = random(tokens_, static_cast<std::int64_t>(n) + 1);
    const kernels::AttnResParamGrads grads{
        .query = random(d), .key_gain = random(d), .bias = {}, .norm_gain = random(d)};
    const double seconds = best_seconds([&] {
      kernels::attn_res_forward(x, read.state, p_in, y, sources, read.params, kernels::Tensor{}, stream_);
      kernels::attn_res_backward(dh, dlogit, dp, grads, dx, read.state, sources, read.params, false, stream_);
    });
    owned_.clear();
    return seconds;
  }

  double time_sources(std::size_t n, std::size_t reads_in_group) {
    const std::int64_t d = config_.hidden_size, columns = static_cast<std::int64_t>(n) + 1;
    const ReadTensors read = read_tensors(n);
    std::vector<kernels::Tensor> dsources;
    for (std::size_t i = 0; i < n; ++i) dsources.push_back(random(tokens_, d));
    std::vector<kernels::AttnResDeferred> deferred;
    for (std::size_t r = 0; r < reads_in_group; ++r) {
      deferred.push_back({.dh = random(tokens_, d),
                          .dlogit = random(tokens_, columns),
                          .alpha = random(tokens_, columns),
                          .score = random(tokens_, columns),
                          .query = read.params.query,
                          .key_gain = read.params.key_gain});
    }
    const kernels::AttnResSources sources{read.values, read.inv_rms};
    const double seconds =
        best_seconds([&] { kernels::attn_res_backward_sources(dsources, deferred, sources, stream_); });
    owned_.clear();
    return seconds;
  }

  const model::Model& model_;
  const model::ModelConfig& config_;
  kernels::DType operand_;
  std::int64_t tokens_;
  kernels::AttentionShape shape_;
  kernels::Buffer workspace_;
  kernels::Stream stream_;
  std::vector<kernels::OwnedTensor> owned_;
};

}  // namespace

std::vector<OperationTime> time_operations(const model::Model& model, std::int64_t batch, std::int64_t seq_len,
                                           std::int64_t head_rows) {
  Bench bench(model, batch, seq_len);
  std::vector<OperationTime> times;
  times.push_back({"matrix products", bench.matrix_products(head_rows)});
  times.push_back({"attention", bench.attention()});
  times.push_back({"QK norm and RoPE", bench.qk_norm_rope()});
  times.push_back({"SwiGLU", bench.swiglu()});
  const auto [reads, sources] = bench.reads();
  if (model.config().routed()) {
    times.push_back({"AttnRes reads with their norms", reads});
    times.push_back({"AttnRes gradient of completed sources", sources});
  }
  times.push_back({"residual additions and norms", bench.norms()});
  times.push_back({"cross-entropy", bench.cross_entropy_chunks(head_rows)});
  times.push_back({"embedding", bench.embedding()});
  times.push_back({"gradient norm, AdamW, zeroing", bench.optimizer()});
  return times;
}

}  // namespace routescope::train
