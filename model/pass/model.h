// A Qwen3 model with a standard or routed residual stream: its configuration, its reads and its parameters.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "kernels/memory.h"
#include "model/files/config.h"
#include "model/pass/parameters.h"
#include "model/pass/reads.h"

namespace routescope::model {

/// Where a model runs, and in which arithmetic.
struct ModelOptions {
  kernels::Device device = kernels::Device::cpu;
  /// The type of parameters and their gradients: f32, or f64 for the reference (CPU only).
  kernels::DType storage = kernels::DType::f32;
  /// bf16: both operands of every matrix product are rounded to bf16, the embedding included; sums are f32. On CUDA
  /// all activations are then bf16 too, with f32 arithmetic in between.
  kernels::DType operands = kernels::DType::f32;
  /// Ranks that share the flat arrays (ParameterLayout).
  std::int64_t shards = 1;

  kernels::DType activations() const { return device == kernels::Device::cuda ? operands : storage; }
};

/// auto (a CUDA device where one answers), cpu or cuda. Throws Error, naming `where`, for a device that is not there.
kernels::Device device_from_string(const std::string& text, const std::string& where);

/// The parameters of a model, on a device.
class Model {
 public:
  Model(const ModelConfig& config, const ModelOptions& options);

  /// Draws every parameter: a pure function of the seed, the configuration and the parameter's name.
  void initialize(std::uint64_t seed);

  /// A model directory (config.json, model.safetensors). Throws Error for whatever does not fit.
  static Model load(const std::filesystem::path& dir, const ModelOptions& options);
  /// Writes config.json and model.safetensors (f32) into an existing directory, each complete or absent, and synced.
  /// Throws std::logic_error after release_matrices().
  void save(const std::filesystem::path& dir) const;
  /// The same for parameters [layout.total()] of any storage type, in host memory.
  static void save(const std::filesystem::path& dir, const ModelConfig& config, const ParameterLayout& layout,
                   kernels::Tensor parameters);

  const ModelConfig& config() const { return config_; }
  const ModelOptions& options() const { return options_; }
  const ReadPlan& plan() const { return plan_; }
  const ParameterLayout& layout() const { return layout_; }
  /// All parameters [layout.total()] in the storage type. Throws std::logic_error after release_matrices().
  kernels::Tensor flat() const;
  /// Its vectors [total - matrices_end]. Every rank always has them.
  kernels::Tensor vectors() const;
  /// In the storage type; matrices are undefined after release_matrices().
  const Weights& weights() const { return weights_; }
  /// One parameter by its published name, in its own shape flattened to [size]. Throws std::logic_error for a matrix
  /// after release_matrices().
  kernels::Tensor parameter(const std::string& name) const;
  /// The weights as a pass uses them: weights() itself, or with the bf16 copies of the matrices that
  /// refresh_operands() last made.
  const Weights& operands() const { return options_.operands == kernels::DType::bf16 ? operand_weights_ : weights_; }
  /// The matrices of operands() [layout.matrices_end()].
  kernels::Tensor operand_matrices() const;
  /// Call this after the parameters changed by other means than initialize() or load(). Throws std::logic_error after
  /// release_matrices(); the optimizer, which then holds the matrices, writes operand_matrices() itself.
  void refresh_operands();

  /// Frees the matrices in f32; their bf16 copies and the vectors stay. For runs of several ranks, where each rank's
  /// optimizer holds a share of the f32 matrices. Throws std::logic_error for a model without bf16 copies.
  void release_matrices();
  bool has_matrices() const { return !released_; }

 private:
  ModelConfig config_;
  ModelOptions options_;
  ReadPlan plan_;
  ParameterLayout layout_;
  kernels::OwnedTensor flat_;  // after release_matrices() the vectors alone
  bool released_ = false;
  Weights weights_;
  kernels::OwnedTensor operand_flat_;
  Weights operand_weights_;
};

}  // namespace routescope::model
