#include "train/plan/throughput.h"

#include <algorithm>
#include <chrono>

#include "kernels/memory.h"
#include "kernels/ops.h"

namespace routescope::train {

namespace {

std::int64_t matrix_size(const model::ModelOptions& options) {
  return options.device == kernels::Device::cuda ? 8192 : 1024;
}

}  // namespace

std::int64_t matmul_parameters(const model::ModelConfig& config) {
  const std::int64_t d = config.hidden_size, attention = config.num_attention_heads * config.head_dim;
  const std::int64_t qkv = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim;
  const std::int64_t layer = d * (qkv + attention + 3 * config.intermediate_size);
  return config.num_hidden_layers * layer + config.vocab_size * d;
}

double flops_per_token(const model::ModelConfig& config, std::int64_t seq_len) {
  const std::int64_t heads_width = config.num_attention_heads * config.head_dim;
  return 6.0 * static_cast<double>(matmul_parameters(config)) +
         6.0 * static_cast<double>(config.num_hidden_layers * heads_width) * static_cast<double>(seq_len + 1);
}

std::size_t matrix_rate_bytes(const model::ModelOptions& options) {
  const auto elements = static_cast<std::size_t>(matrix_size(options) * matrix_size(options));
  return elements * (2 * kernels::size_of(options.operands) + kernels::size_of(options.activations()));
}

double measure_matrix_rate(const model::ModelOptions& options, double seconds) {
  const std::int64_t size = matrix_size(options);
  const kernels::OwnedTensor a(options.operands, options.device, {size, size}),
      b(options.operands, options.device, {size, size});
  const kernels::OwnedTensor c(options.activations(), options.device, {size, size});
  const std::size_t workspace_size = kernels::workspace_bytes(
      {.tokens = size, .hidden_size = size, .product_k = size, .product_n = size}, options.device);
  const kernels::Buffer workspace(workspace_size, options.device);
  const kernels::Stream stream{.device = options.device,
                               .workspace = static_cast<std::byte*>(workspace.data()),
                               .workspace_size = workspace_size};
  // A GPU multiplies zeros faster than numbers.
  random_normal(a.tensor, 1.0, 1, 1, stream);
  kernels::random_normal(b.tensor, 1.0, 1, 2, stream);
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  const Clock::time_point begin = Clock::now();
  double best = 1e30;
  do {
    kernels::synchronize(stream);
    const Clock::time_point product = Clock::now();
    kernels::matmul(c.tensor, a.tensor, kernels::Transpose::no, b.tensor, kernels::Transpose::yes, false, stream);
    kernels::synchronize(stream);
    best = std::min(best, since(product));
  } while (since(begin) < seconds);
  const auto extent = static_cast<double>(size);
  return 2.0 * extent * extent * extent / best;
}

}  // namespace routescope::train
