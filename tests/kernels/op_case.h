// One call of an operation, described without saying on which backend and in which type: its arguments by name with the
// values they start from, and the call itself. The same case then runs on the reference and on a fast backend
// (backends_test), and under several numbers of threads (determinism_test).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "kernels/bf16.h"
#include "kernels/memory.h"
#include "kernels/ops.h"
#include "kernels/random.h"

namespace routescope::testing {

inline constexpr std::uint64_t kSeed = 20240607;

enum class Role { real, operand, activation, ids, sums };

/// Where a run happens and in which element types: f64 throughout (reference), f32, or f32 with bf16 operands and, on
/// CUDA, bf16 activations.
struct Types {
  kernels::DType real;
  kernels::DType operand;
  kernels::DType activation;
  kernels::Device device = kernels::Device::cpu;
  kernels::DType of(Role role) const {
    switch (role) {
      case Role::real:
        return real;
      case Role::operand:
        return operand;
      case Role::activation:
        return activation;
      case Role::ids:
        return kernels::DType::i32;
      case Role::sums:
        return kernels::DType::f64;
    }
    return real;
  }
};

inline constexpr Types kReference{kernels::DType::f64, kernels::DType::f64, kernels::DType::f64};
inline constexpr Types kFloat{kernels::DType::f32, kernels::DType::f32, kernels::DType::f32};
inline constexpr Types kMixed{kernels::DType::f32, kernels::DType::bf16, kernels::DType::f32};
inline constexpr Types kCudaFloat{kernels::DType::f32, kernels::DType::f32, kernels::DType::f32, kernels::Device::cuda};
inline constexpr Types kCudaBf16{kernels::DType::f32, kernels::DType::bf16, kernels::DType::bf16,
                                 kernels::Device::cuda};

struct Argument {
  std::string name;
  Role role;
  std::vector<std::int64_t> shape;
  std::function<std::vector<double>()> values;  // what it starts from, made when a test runs
  double reduction = 0;                         // of a result: the number of terms in a sum; 0: an input
  double magnitude = 0;                         // of a result: the size of the sums on the way where they cancel
};

inline std::int64_t elements(const std::vector<std::int64_t>& shape) {
  std::int64_t count = 1;
  for (std::int64_t extent : shape) count *= extent;
  return count;
}

inline kernels::OwnedTensor make_tensor(kernels::DType dtype, kernels::Device device,
                                        const std::vector<std::int64_t>& shape) {
  switch (shape.size()) {
    case 1:
      return {dtype, device, {shape[0]}};
    case 2:
      return {dtype, device, {shape[0], shape[1]}};
    default:
      return {dtype, device, {shape.at(0), shape.at(1), shape.at(2)}};
  }
}

/// The same tensor in the host's memory.
inline kernels::OwnedTensor on_host(const kernels::Tensor& t) {
  kernels::OwnedTensor host = make_tensor(t.dtype, kernels::Device::cpu, {t.shape.begin(), t.shape.begin() + t.rank});
  kernels::copy(host.tensor, t, kernels::Stream{.device = t.device});
  return host;
}

inline double get(const kernels::Tensor& t, std::int64_t i) {
  switch (t.dtype) {
    case kernels::DType::f64:
      return t.as<double>()[i];
    case kernels::DType::f32:
      return static_cast<double>(t.as<float>()[i]);
    case kernels::DType::bf16:
      return static_cast<double>(kernels::to_float(t.as<kernels::bf16>()[i]));
    case kernels::DType::i32:
      return t.as<std::int32_t>()[i];
  }
  return 0;
}

inline void set(const kernels::Tensor& t, std::int64_t i, double value) {
  switch (t.dtype) {
    case kernels::DType::f64:
      t.as<double>()[i] = value;
      break;
    case kernels::DType::f32:
      t.as<float>()[i] = static_cast<float>(value);
      break;
    case kernels::DType::bf16:
      t.as<kernels::bf16>()[i] = kernels::to_bf16(value);
      break;
    case kernels::DType::i32:
      t.as<std::int32_t>()[i] = static_cast<std::int32_t>(value);
      break;
  }
}

inline std::vector<double> values_of(const kernels::Tensor& t) {
  const kernels::OwnedTensor host = on_host(t);
  std::vector<double> out(static_cast<std::size_t>(t.numel()));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = get(host.tensor, static_cast<std::int64_t>(i));
  return out;
}

/// A number as a type would store it.
inline double rounded(double value, kernels::DType dtype) {
  if (dtype == kernels::DType::f32) return static_cast<double>(static_cast<float>(value));
  if (dtype == kernels::DType::bf16) return static_cast<double>(kernels::to_float(kernels::to_bf16(value)));
  return value;
}

/// Numbers of mean `center` and standard deviation `spread`, evenly spread; another sequence for each `stream`.
inline std::vector<double> random_numbers(std::int64_t count, std::uint64_t stream, double spread = 1,
                                          double center = 0) {
  std::vector<double> out(static_cast<std::size_t>(count));
  kernels::Philox4x32 words{};
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (i % 4 == 0) words = kernels::random_words(kSeed, stream, i / 4);
    out[i] = center + spread * std::sqrt(12.0) * (kernels::to_uniform(words.word[i % 4]) - 0.5);
  }
  return out;
}

class OpCase;

/// The tensors of one run, by name; an absent name is an undefined tensor.
class Tensors {
 public:
  Tensors(const OpCase& op, const Types& types, const Types& inputs_rounded_as);
  kernels::Tensor operator[](const std::string& name) const {
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? kernels::Tensor() : found->second.tensor;
  }

 private:
  std::map<std::string, kernels::OwnedTensor> tensors_;
};

class OpCase {
 public:
  using Call = std::function<void(const Tensors&, const kernels::Stream&)>;

  explicit OpCase(std::string name) : name_(std::move(name)) {}

  /// An input of random numbers.
  OpCase& input(const std::string& name, Role role, const std::vector<std::int64_t>& shape, double spread = 1,
                double center = 0) {
    arguments_.push_back({name, role, shape, [=, stream = arguments_.size()] {
                            return random_numbers(elements(shape), stream, spread, center);
                          }});
    return *this;
  }
  OpCase& given(const std::string& name, Role role, const std::vector<std::int64_t>& shape,
                const std::vector<double>& values) {
    arguments_.push_back({name, role, shape, [=] { return values; }});
    return *this;
  }
  /// A result, with the number of terms that one of its elements sums. It starts from random numbers, so that "+=" and
  /// "=" are told apart. `magnitude` is for results that are small because larger numbers cancelled.
  OpCase& output(const std::string& name, Role role, const std::vector<std::int64_t>& shape, double reduction,
                 double magnitude = 0) {
    input(name, role, shape);
    arguments_.back().reduction = reduction;
    arguments_.back().magnitude = magnitude;
    return *this;
  }
  OpCase& limits(const kernels::WorkspaceLimits& limits) {
    limits_ = limits;
    return *this;
  }
  /// With bf16 activations, numbers on the way to the results are rounded to bf16, not only the results.
  OpCase& rounds_on_the_way() {
    rounds_on_the_way_ = true;
    return *this;
  }
  OpCase& call(Call call) {
    call_ = std::move(call);
    return *this;
  }

  const std::string& name() const { return name_; }
  /// The roundoff of numbers on the way to this case's results.
  double roundoff_on_the_way(const Types& types) const {
    return rounds_on_the_way_ && types.activation == kernels::DType::bf16 ? 0x1p-9 : 0x1p-24;
  }
  friend void PrintTo(const OpCase& op, std::ostream* os) { *os << op.name_; }
  const std::vector<Argument>& arguments() const { return arguments_; }

  /// Runs with these types; starts from values that have gone through `inputs_rounded_as`, so that a reference run
  /// begins with exactly the numbers of the fast run that it is compared to.
  Tensors run(const Types& types, const Types& inputs_rounded_as) const {
    Tensors out(*this, types, inputs_rounded_as);
    // The workspace is filled with NaN: nothing may be taken from what a former operation left there.
    const std::size_t bytes = kernels::workspace_bytes(limits_, types.device);
    const std::vector<float> garbage(bytes / sizeof(float) + 1, std::nanf(""));
    const auto count = static_cast<std::int64_t>(garbage.size());
    const kernels::OwnedTensor workspace(kernels::DType::f32, types.device, {count});
    kernels::copy(
        workspace.tensor,
        kernels::Tensor(const_cast<float*>(garbage.data()), kernels::DType::f32, kernels::Device::cpu, {count}),
        kernels::Stream{.device = types.device});
    const kernels::Stream stream{types.device, nullptr, static_cast<std::byte*>(workspace.tensor.data), bytes};
    call_(out, stream);
    kernels::synchronize(stream);
    return out;
  }

 private:
  std::string name_;
  std::vector<Argument> arguments_;
  kernels::WorkspaceLimits limits_{};
  bool rounds_on_the_way_ = false;
  Call call_;
};

inline Tensors::Tensors(const OpCase& op, const Types& types, const Types& inputs_rounded_as) {
  for (const Argument& argument : op.arguments()) {
    kernels::OwnedTensor host = make_tensor(types.of(argument.role), kernels::Device::cpu, argument.shape);
    const kernels::DType through = inputs_rounded_as.of(argument.role);
    const std::vector<double> values = argument.values();
    for (std::size_t i = 0; i < values.size(); ++i)
      set(host.tensor, static_cast<std::int64_t>(i), rounded(values[i], through));
    kernels::OwnedTensor& owned = tensors_[argument.name];
    if (types.device == kernels::Device::cpu) {
      owned = std::move(host);
    } else {
      owned = make_tensor(types.of(argument.role), types.device, argument.shape);
      kernels::copy(owned.tensor, host.tensor, kernels::Stream{.device = types.device});
    }
  }
}

}  // namespace routescope::testing
