// The operations that are limited by memory: how fast each moves the bytes that it cannot do without.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "train/bench/bench_device.h"

namespace routescope::train {

/// One operation at one shape.
struct Traffic {
  std::string name;
  std::string formula;  // of `bytes` for a token or element, without scalars: b bytes an activation, n sources, R reads
  double bytes = 0;     // of one call, every input read and every output written once
  double aim = 0;       // share of the copy bandwidth; 0: none is set
  double seconds = 0;   // of one call
  std::string error;    // why it could not be measured

  double bytes_per_second() const { return seconds > 0 ? bytes / seconds : 0; }
};

/// Measures one operation after another and hands each result on at once. One that fails is reported with its error.
class TrafficBench {
 public:
  using Report = std::function<void(const Traffic&)>;
  TrafficBench(const BenchShape& shape, const Timing& timing, Report report);

  /// The card's own speed: a copy of `bytes` (so many read, as many written), by the driver and by cast().
  void copies(double bytes);
  /// Everything but the reads.
  void dense();
  /// The reads of Attention Residuals, over n = 1, 4, 8 completed sources, in groups of eight reads.
  void reads();

  const std::vector<Traffic>& results() const { return results_; }

 private:
  using Call = std::function<void()>;
  /// `make` allocates one input set and returns a call on it.
  void measure(const std::string& name, const std::string& formula, double bytes, double aim,
               const std::function<Call()>& make);

  void elementwise();
  void embedding();
  void norms();
  void attention_side();
  void mlp_side();
  void logits();
  void optimizer();

  struct ReadSet;
  std::shared_ptr<ReadSet> read_set(std::int64_t n, std::int64_t reads);
  void reads_over(std::int64_t n);

  kernels::Tensor activation(std::int64_t width) { return data_.random(shape_.activations, {shape_.tokens(), width}); }
  kernels::Tensor unwritten(std::int64_t width) {
    return data_.filled(shape_.activations, {shape_.tokens(), width}, 1.0);
  }
  kernels::Tensor real(std::initializer_list<std::int64_t> shape) { return data_.random(kernels::DType::f32, shape); }
  /// Bytes of `elements` activations.
  double wide(std::int64_t elements) const {
    return static_cast<double>(elements) * static_cast<double>(kernels::size_of(shape_.activations));
  }

  BenchShape shape_;
  Timing timing_;
  Report report_;
  DeviceData data_;
  std::vector<Traffic> results_;
};

}  // namespace routescope::train
