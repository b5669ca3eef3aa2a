#include "kernels/checks.h"

#include <algorithm>
#include <stdexcept>

namespace routescope::kernels {

namespace {

std::string text(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return "f64";
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::i32:
      return "i32";
  }
  return "?";
}

template <class Extents>
std::string text(const Extents& shape, std::size_t rank) {
  std::string out = "[";
  for (std::size_t i = 0; i < rank; ++i) out += (i ? ", " : "") + std::to_string(shape.begin()[i]);
  return out + "]";
}

std::string text(Kind kind, bool reference, Device device) {
  switch (kind) {
    case Kind::real:
      return reference ? "f64" : "f32";
    case Kind::operand:
      return reference ? "f64" : "f32 or bf16";
    case Kind::activation:
      return reference ? "f64" : device == Device::cuda ? "f32 or bf16" : "f32";
    case Kind::ids:
      return "i32";
    case Kind::sums:
      return "f64";
    case Kind::any:
      return "any type";
  }
  return "?";
}

bool fits(DType dtype, Kind kind, bool reference, Device device) {
  const DType real = reference ? DType::f64 : DType::f32;
  switch (kind) {
    case Kind::real:
      return dtype == real;
    case Kind::operand:
      return dtype == real || (!reference && dtype == DType::bf16);
    case Kind::activation:
      return dtype == real || (device == Device::cuda && dtype == DType::bf16);
    case Kind::ids:
      return dtype == DType::i32;
    case Kind::sums:
      return dtype == DType::f64;
    case Kind::any:
      return true;
  }
  return false;
}

bool same_shape(const Tensor& t, std::initializer_list<std::int64_t> shape) {
  if (shape.size() == 1) return t.numel() == *shape.begin();
  return t.rank == static_cast<int>(shape.size()) && std::equal(shape.begin(), shape.end(), t.shape.begin());
}

}  // namespace

Checks::Checks(const char* operation, const Tensor& pivot)
    : operation_(operation),
      device_(pivot.device),
      reference_(pivot.device == Device::cpu && pivot.dtype == DType::f64),
      rows_(pivot.shape[0]),
      columns_(pivot.shape[1]) {
  if (!pivot) throw std::invalid_argument(std::string(operation) + ": a required tensor is undefined");
}

const Checks& Checks::is(const char* name, const Tensor& t, Kind kind,
                         std::initializer_list<std::int64_t> shape) const {
  const std::string expected = text(kind, reference_, device_) + " " + text(shape, shape.size());
  if (!t) throw std::invalid_argument(std::string(operation_) + ": " + name + " is undefined, expected " + expected);
  if (!fits(t.dtype, kind, reference_, device_) || !same_shape(t, shape))
    throw std::invalid_argument(std::string(operation_) + ": " + name + " is " + text(t.dtype) + " " +
                                text(t.shape, static_cast<std::size_t>(t.rank)) + ", expected " + expected);
  if (t.device != device_)
    throw std::invalid_argument(std::string(operation_) + ": " + name + " is on another device than the other tensors");
  return *this;
}

const Checks& Checks::may(const char* name, const Tensor& t, Kind kind,
                          std::initializer_list<std::int64_t> shape) const {
  return t ? is(name, t, kind, shape) : *this;
}

const Checks& Checks::that(bool condition, const std::string& expected) const {
  if (!condition) throw std::invalid_argument(std::string(operation_) + ": expected " + expected);
  return *this;
}

const Checks& Checks::ids_within(const char* name, const Tensor& ids, std::int32_t lowest,
                                 std::int64_t vocabulary) const {
  if (device_ != Device::cpu) return *this;
  for (std::int64_t i = 0; i < ids.numel(); ++i) {
    const std::int32_t id = ids.as<std::int32_t>()[i];
    if (id < lowest || id >= vocabulary)
      throw std::invalid_argument(std::string(operation_) + ": " + name + "[" + std::to_string(i) + "] is " +
                                  std::to_string(id) + ", expected at least " + std::to_string(lowest) +
                                  " and less than the vocabulary, " + std::to_string(vocabulary));
  }
  return *this;
}

void check_attention_shape(const Checks& checks, const AttentionShape& shape) {
  checks
      .that(shape.batch >= 0 && shape.seq_len >= 0 && shape.heads > 0 && shape.kv_heads > 0 && shape.head_dim > 0,
            "positive extents of attention")
      .that(shape.heads % shape.kv_heads == 0, "heads (" + std::to_string(shape.heads) +
                                                   ") to be a multiple of kv_heads (" + std::to_string(shape.kv_heads) +
                                                   ")")
      .that(shape.head_dim % 2 == 0, "an even head_dim, found " + std::to_string(shape.head_dim));
}

void check_state(const Checks& checks, const AttnResState& state, std::int64_t n, const AttnResParams& params) {
  const std::int64_t tokens = checks.rows(), d = checks.columns();
  checks.is("state.partial", state.partial, Kind::activation, {tokens, d})
      .is("state.inv_rms", state.inv_rms, Kind::real, {tokens})
      .is("state.score", state.score, Kind::real, {tokens, n + 1})
      .is("state.alpha", state.alpha, Kind::real, {tokens, n + 1})
      .is("state.h_inv_rms", state.h_inv_rms, Kind::real, {tokens})
      .is("params.query", params.query, Kind::real, {d})
      .is("params.key_gain", params.key_gain, Kind::real, {d})
      .is("params.norm_gain", params.norm_gain, Kind::real, {d})
      .may("params.bias", params.bias, Kind::real, {1})
      .may("params.logit_bias", params.logit_bias, Kind::real, {n + 1});
}

void check_read(const Checks& checks, const AttnResState& state, const AttnResSources& sources,
                const AttnResParams& params) {
  const std::int64_t tokens = checks.rows(), d = checks.columns();
  checks.that(sources.inv_rms.size() == sources.values.size(), "as many inv_rms as values of sources");
  for (const Tensor& value : sources.values) checks.is("sources.values", value, Kind::activation, {tokens, d});
  for (const Tensor& inv_rms : sources.inv_rms) checks.is("sources.inv_rms", inv_rms, Kind::real, {tokens});
  check_state(checks, state, static_cast<std::int64_t>(sources.values.size()), params);
}

}  // namespace routescope::kernels
