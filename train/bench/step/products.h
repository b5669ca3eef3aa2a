// The matrix products of a training step, and the speed of oneDNN alone on them, which a step's speed is compared with.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "model/pass/model.h"

namespace routescope::train {

/// c [m, n] = op(a) op(b), `count` times in a step.
struct Product {
  std::string name;
  std::int64_t m = 0, n = 0, k = 0;
  kernels::Transpose transpose_a = kernels::Transpose::no, transpose_b = kernels::Transpose::no;
  bool accumulate = false;
  std::int64_t count = 1;

  double flops() const { return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k); }
};

/// For every projection and for the head in chunks of `head_rows`: the forward product, the gradient of the input and
/// the gradient of the weight.
std::vector<Product> products_of_step(const model::ModelConfig& config, std::int64_t tokens, std::int64_t head_rows);

/// Seconds of one plain dnnl::matmul of that shape with all threads, operands f32 or bf16, row-major, result f32.
double onednn_seconds(const Product& product, kernels::DType operands);
/// Seconds of the same product by ops.h's matmul().
double matmul_seconds(const Product& product, kernels::DType operands, const kernels::Stream& stream);

/// Seconds of a call: the least of a few calls, after a first one that is not timed.
double best_seconds(const std::function<void()>& call);

}  // namespace routescope::train
