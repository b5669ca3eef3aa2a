// Measuring operations that are limited by memory: how fast each moves the bytes that it must move.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "train/bench/card/device.h"

namespace routescope::train {

/// One operation at one shape.
struct Traffic {
  std::string name;
  std::string formula;  // of `bytes` for a token or element, without scalars: b bytes an activation, n sources, R reads
  double bytes = 0;     // of one call: every input read once, every output written once
  double aim = 0;       // share of the copy bandwidth that we aim at; 0: no aim
  double seconds = 0;   // of one call
  std::string error;    // why it could not be measured

  double bytes_per_second() const { return seconds > 0 ? bytes / seconds : 0; }
};

// The aims of forward and backward operations.
inline constexpr double forward_aim = 0.90, backward_aim = 0.85;

/// Measures one operation after another and reports each result at once. An operation that fails is reported with its
/// error.
class TrafficBench {
 public:
  using Report = std::function<void(const Traffic&)>;
  using Call = std::function<void()>;
  TrafficBench(const BenchShape& shape, const Timing& timing, Report report);

  /// Measures one operation. `make` allocates one set of inputs and returns a call on it.
  void measure(const std::string& name, const std::string& formula, double bytes, double aim,
               const std::function<Call()>& make);
  /// The card's copy bandwidth: a copy of `bytes`, by the driver and by cast(). It reads and writes so many each.
  void copies(double bytes);
  /// Everything but the reads (read_traffic.h).
  void dense();

  const std::vector<Traffic>& results() const { return results_; }

  // ---- for the operations: shapes, and tensors of one input set ----

  const BenchShape& shape() const { return shape_; }
  DeviceData& data() { return data_; }
  const kernels::Stream& stream() const { return data_.stream(); }
  /// [tokens, width] of random activations.
  kernels::Tensor activation(std::int64_t width) { return data_.random(shape_.activations, {shape_.tokens(), width}); }
  /// [tokens, width] that the operation writes.
  kernels::Tensor output(std::int64_t width) { return data_.filled(shape_.activations, {shape_.tokens(), width}, 1.0); }
  /// Random f32 numbers.
  kernels::Tensor real(std::initializer_list<std::int64_t> shape) { return data_.random(kernels::DType::f32, shape); }
  /// f32 numbers that are all `value`.
  kernels::Tensor constant(std::initializer_list<std::int64_t> shape, double value) {
    return data_.filled(kernels::DType::f32, shape, value);
  }
  /// Bytes of activations.
  double activation_bytes(std::int64_t elements) const {
    return static_cast<double>(elements) * static_cast<double>(kernels::size_of(shape_.activations));
  }

 private:
  void elementwise();
  void embedding();
  void norms();
  void attention_side();
  void mlp_side();
  void logits();
  void optimizer();

  BenchShape shape_;
  Timing timing_;
  Report report_;
  DeviceData data_;
  std::vector<Traffic> results_;
};

}  // namespace routescope::train
