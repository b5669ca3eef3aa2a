// The FLOPs of a token, and this machine's rate of matrix products.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/files/config.h"
#include "model/pass/model.h"

namespace routescope::train {

/// Number of parameters in matrix products: the projections and the head (tied or not), without the embedding, gains
/// and routing parameters.
std::int64_t matmul_parameters(const model::ModelConfig& config);

/// Floating-point operations of the model for one token of a training step, a multiply-add counting as two, nothing
/// recomputed: 6 * matmul_parameters + 6 * layers * heads * head_dim * (seq_len + 1). The second term is q k^T and the
/// weighted sum of v over the (seq_len + 1) / 2 positions a query sees on average, forward (2 products) and backward
/// (4). Norms, softmaxes and AttnRes reads are limited by memory and not counted.
double flops_per_token(const model::ModelConfig& config, std::int64_t seq_len);

/// FLOP/s of matmul() with operands of type options.operands: the best of repeated products of square matrices (1024 on
/// the CPU with all threads, 8192 on CUDA), which take about `seconds`.
double measure_matrix_rate(const model::ModelOptions& options, double seconds);
/// Bytes of memory that measure_matrix_rate() needs.
std::size_t matrix_rate_bytes(const model::ModelOptions& options);

}  // namespace routescope::train
