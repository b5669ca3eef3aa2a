// The basis of measurements on a CUDA device: random tensors, and the time of a call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <vector>

#include "kernels/memory.h"
#include "kernels/ops.h"
#include "model/files/config.h"

namespace routescope::train {

/// How long a measurement is. Each of `repetitions` samples holds calls for about `sample_seconds`, at least one on
/// each input set. The sets together hold at least `rotated_bytes`, several times the 50 MB of an H200's L2 cache.
struct Timing {
  int repetitions = 7;
  double sample_seconds = 0.01;
  double rotated_bytes = 512e6;
};

/// The shape that operations are measured at.
struct BenchShape {
  model::ModelConfig model;
  std::int64_t batch = 1, sequence_length = 1;
  std::int64_t head_rows = 1;  // number of tokens whose logits exist at the same time
  kernels::DType activations = kernels::DType::bf16;

  std::int64_t tokens() const { return batch * sequence_length; }
  kernels::AttentionShape attention() const {
    return {batch, sequence_length, model.num_attention_heads, model.num_key_value_heads, model.head_dim};
  }
};

/// Tensors on the device, which live as long as one measurement, and a stream with its workspace.
class DeviceData {
 public:
  explicit DeviceData(const BenchShape& shape);

  /// N(0, 1), other numbers in each tensor: memory and matrix units are faster on zeros than on data.
  kernels::Tensor random(kernels::DType dtype, std::initializer_list<std::int64_t> shape);
  kernels::Tensor filled(kernels::DType dtype, std::initializer_list<std::int64_t> shape, double value);
  /// Uniform in [0, below).
  kernels::Tensor ids(std::int64_t count, std::int64_t below);
  /// Frees the tensors.
  void clear();

  const kernels::Stream& stream() const { return stream_; }

 private:
  kernels::Buffer workspace_;
  kernels::Stream stream_;
  std::vector<kernels::OwnedTensor> owned_;
  std::uint64_t sequence_ = 0;
};

/// How many input sets of `bytes` a measurement uses in turn, so that no call finds its inputs in the L2 cache.
int input_sets(double bytes, const Timing& timing);

/// Seconds of one call on the device: the median over samples. A sample is the time between two events around many
/// calls, which use the input sets in turn; `call` receives the number of the set. Every set is called once before.
double device_seconds(const kernels::Stream& stream, const Timing& timing, int sets,
                      const std::function<void(int)>& call);

}  // namespace routescope::train
