// Shared by both passes of an Attention Residuals read: access to one token's sources, and their weighted sums.
#pragma once

#include <algorithm>

#include "kernels/cpu/parts/vec.h"
#include "kernels/op_types.h"

namespace routescope::kernels::cpu {

/// One token's values v_0 .. v_n and their inverse RMS: the completed sources, then the partial.
class ReadRow {
 public:
  ReadRow(const AttnResSources& sources, const AttnResState& state, std::int64_t token)
      : sources_(sources),
        state_(state),
        token_(token),
        d_(state.partial.shape[1]),
        n_(static_cast<std::int64_t>(sources.values.size())) {}

  std::int64_t count() const { return n_ + 1; }
  const float* value(std::int64_t i) const {
    return (i < n_ ? sources_.values[static_cast<std::size_t>(i)] : state_.partial).as<float>() + token_ * d_;
  }
  float inv_rms(std::int64_t i) const {
    return (i < n_ ? sources_.inv_rms[static_cast<std::size_t>(i)] : state_.inv_rms).as<float>()[token_];
  }

 private:
  const AttnResSources& sources_;
  const AttnResState& state_;
  std::int64_t token_;
  std::int64_t d_;
  std::int64_t n_;
};

/// One token's completed sources alone.
class SourceRow {
 public:
  SourceRow(const AttnResSources& sources, std::int64_t token) : sources_(sources), token_(token) {}

  std::int64_t count() const { return static_cast<std::int64_t>(sources_.values.size()); }
  const float* value(std::int64_t i) const {
    const Tensor& source = sources_.values[static_cast<std::size_t>(i)];
    return source.as<float>() + token_ * source.shape[1];
  }
  float inv_rms(std::int64_t i) const { return sources_.inv_rms[static_cast<std::size_t>(i)].as<float>()[token_]; }

 private:
  const AttnResSources& sources_;
  std::int64_t token_;
};

inline void multiply_rows(float* out, const float* a, const float* b, std::int64_t d) {
  for_columns(d, [=](auto at) { at.store(out, at.load(a) * at.load(b)); });
}

/// result_i = <a, v_i> for every value of the read, four values at a time: a is loaded once for the four.
template <class Row>
inline void dots(float* result, const float* a, const Row& v, std::int64_t d) {
  std::int64_t i = 0;
  for (; i + 4 <= v.count(); i += 4) {
    const float *v0 = v.value(i), *v1 = v.value(i + 1), *v2 = v.value(i + 2), *v3 = v.value(i + 3);
    Vec sum0{}, sum1{}, sum2{}, sum3{};
    for_columns(d, [&](auto at) {
      const Vec factor = at.load(a);
      sum0 += factor * at.load(v0);
      sum1 += factor * at.load(v1);
      sum2 += factor * at.load(v2);
      sum3 += factor * at.load(v3);
    });
    result[i] = sum_lanes(sum0);
    result[i + 1] = sum_lanes(sum1);
    result[i + 2] = sum_lanes(sum2);
    result[i + 3] = sum_lanes(sum3);
  }
  for (; i < v.count(); ++i) result[i] = dot(a, v.value(i), d);
}

/// body(at, sum_i weight(i) v_i) for every vector of columns: a block of columns stays in registers over all
/// values.
template <class Row, class Weight, class Body>
inline void weighted_sums(const Row& v, std::int64_t d, Weight&& weight, Body&& body) {
  for_column_blocks<8>(d, [&](auto vecs, auto at) {
    Vec sum[vecs];
    for (int k = 0; k < vecs; ++k) sum[k] = Vec{};
    for (std::int64_t i = 0; i < v.count(); ++i) {
      const float* row = v.value(i);
      const float factor = weight(i);
      for (int k = 0; k < vecs; ++k) sum[k] += factor * next(at, k).load(row);
    }
    for (int k = 0; k < vecs; ++k) body(next(at, k), sum[k]);
  });
}

}  // namespace routescope::kernels::cpu
