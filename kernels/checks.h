// The checks of every operation's arguments, written once for all backends. Each check throws std::invalid_argument
// with one line: the operation, the argument, what was found and what was expected.
#pragma once

#include <initializer_list>
#include <string>

#include "kernels/op_types.h"

namespace routescope::kernels {

/// The element types an argument may have.
enum class Kind {
  real,        // f64 on the reference, f32 on the fast backends
  operand,     // real, or bf16 on the fast backends
  activation,  // real, or bf16 on CUDA
  ids,         // i32
  sums,        // f64 everywhere
  any,
};

/// Collects the checks of one call. The pivot decides the backend: its device, and f64 for the reference.
class Checks {
 public:
  Checks(const char* operation, const Tensor& pivot);

  /// `t` is defined and of this type and shape, on the pivot's device. One axis in `shape` means that only the number
  /// of elements counts.
  const Checks& is(const char* name, const Tensor& t, Kind kind, std::initializer_list<std::int64_t> shape) const;
  /// As `is`, but `t` may be undefined.
  const Checks& may(const char* name, const Tensor& t, Kind kind, std::initializer_list<std::int64_t> shape) const;
  /// A condition that is not about one tensor's shape.
  const Checks& that(bool condition, const std::string& expected) const;
  /// On the CPU, every id is in [lowest, vocabulary).
  const Checks& ids_within(const char* name, const Tensor& ids, std::int32_t lowest, std::int64_t vocabulary) const;

  bool reference() const { return reference_; }
  Device device() const { return device_; }
  /// The first axis of the pivot, and the second of a two-dimensional one.
  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }

 private:
  const char* operation_;
  Device device_;
  bool reference_;
  std::int64_t rows_;
  std::int64_t columns_;
};

void check_attention_shape(const Checks& checks, const AttentionShape& shape);
/// The state and parameters of a read with n completed sources. check_read also checks the sources.
void check_state(const Checks& checks, const AttnResState& state, std::int64_t n, const AttnResParams& params);
void check_read(const Checks& checks, const AttnResState& state, const AttnResSources& sources,
                const AttnResParams& params);

}  // namespace routescope::kernels
