// Reference: residual addition and RMSNorm.
//   p = p_in + y,  s = (mean(p^2) + eps)^(-1/2),  x = p s gain
//   dp += s (g - p s^2 <g, p> / d)  with  g = dx gain;   dgain += sum over tokens of dx p s
#include <cmath>

#include "kernels/backends.h"

namespace routescope::kernels::reference {

void add_rms_norm_forward(Tensor x, Tensor p, Tensor inv_rms, Tensor p_in, Tensor y, Tensor gain, double eps,
                          const Stream&) {
  const std::int64_t tokens = p.shape[0], d = p.shape[1];
  for (std::int64_t t = 0; t < tokens; ++t) {
    double* row = p.as<double>() + t * d;
    double sum = 0;
    for (std::int64_t j = 0; j < d; ++j) {
      const double from_p = p_in ? p_in.as<double>()[t * d + j] : 0.0;
      const double from_y = y ? y.as<double>()[t * d + j] : 0.0;
      row[j] = from_p + from_y;
      sum += row[j] * row[j];
    }
    const double s = 1 / std::sqrt(sum / static_cast<double>(d) + eps);
    inv_rms.as<double>()[t] = s;
    for (std::int64_t j = 0; j < d; ++j) x.as<double>()[t * d + j] = row[j] * s * gain.as<double>()[j];
  }
}

void add_rms_norm_backward(Tensor dp, Tensor dgain, Tensor dx, Tensor p, Tensor inv_rms, Tensor gain, const Stream&) {
  const std::int64_t tokens = p.shape[0], d = p.shape[1];
  for (std::int64_t t = 0; t < tokens; ++t) {
    const double* row = p.as<double>() + t * d;
    const double* grad = dx.as<double>() + t * d;
    const double s = inv_rms.as<double>()[t];
    double dot = 0;
    for (std::int64_t j = 0; j < d; ++j) dot += grad[j] * gain.as<double>()[j] * row[j];
    for (std::int64_t j = 0; j < d; ++j) {
      dgain.as<double>()[j] += grad[j] * row[j] * s;
      dp.as<double>()[t * d + j] +=
          s * (grad[j] * gain.as<double>()[j] - row[j] * s * s * dot / static_cast<double>(d));
    }
  }
}

}  // namespace routescope::kernels::reference
