// What the forward and backward pass of an Attention Residuals read share: access to one token's sources, and their
// weighted sum.
#pragma once

#include <omp.h>

#include "kernels/cpu/rows.h"
#include "kernels/op_types.h"

namespace routescope::cpu {

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

/// A row of scratch for each thread.
class PerThreadRows {
 public:
  PerThreadRows(Scratch& scratch, std::int64_t width)
      : width_((width + 15) / 16 * 16),
        rows_(scratch.take<float>(static_cast<std::size_t>(width_ * omp_get_max_threads()))) {}
  float* mine() const { return rows_ + width_ * omp_get_thread_num(); }

 private:
  std::int64_t width_;
  float* rows_;
};

inline void multiply_rows(float* out, const float* a, const float* b, std::int64_t d) {
#pragma omp simd
  for (std::int64_t j = 0; j < d; ++j) out[j] = a[j] * b[j];
}

/// h = sum_i weight[i] v_i, in the order of the sources; returns sum h^2. Columns are taken kLanes at a time so that h
/// stays in registers while the sources go by.
inline float weighted_sum(float* h, const float* weight, const ReadRow& v, std::int64_t d) {
  for (std::int64_t begin = 0; begin < d; begin += kLanes) {
    const std::int64_t width = std::min<std::int64_t>(kLanes, d - begin);
    alignas(64) float sum[kLanes] = {};
    for (std::int64_t i = 0; i < v.count(); ++i) {
      const float* row = v.value(i) + begin;
      const float a = weight[i];
      if (width == kLanes) {
#pragma omp simd
        for (int l = 0; l < kLanes; ++l) sum[l] += a * row[l];
      } else {
        for (std::int64_t l = 0; l < width; ++l) sum[l] += a * row[l];
      }
    }
    for (std::int64_t l = 0; l < width; ++l) h[begin + l] = sum[l];
  }
  return sum_of_squares(h, d);
}

}  // namespace routescope::cpu
