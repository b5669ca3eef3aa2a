// Reference: per-head RMSNorm of q and k with a gain, then rotary embedding by rotation of halves.
//   x = q s gain,  s = (mean(q^2) + eps)^(-1/2);   with half = head_dim / 2 and angle = position theta^(-2i/head_dim)
//   out[i] = x[i] cos - x[i+half] sin,   out[i+half] = x[i+half] cos + x[i] sin
// Backwards the rotation is by the negative angle, then the norm's own gradient as in norm.cpp.
#include <cmath>
#include <vector>

#include "kernels/backends.h"

namespace routescope::kernels::reference {

namespace {

double inverse_rms(const double* x, std::int64_t n, double eps) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
  return 1 / std::sqrt(sum / static_cast<double>(n) + eps);
}

/// Rotates x [head_dim] in place; sign -1 is the inverse.
void rotate(double* x, std::int64_t head_dim, std::int64_t position, double theta, double sign) {
  const std::int64_t half = head_dim / 2;
  for (std::int64_t i = 0; i < half; ++i) {
    const double frequency = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    const double angle = sign * static_cast<double>(position) * frequency;
    const double low = x[i], high = x[i + half];
    x[i] = low * std::cos(angle) - high * std::sin(angle);
    x[i + half] = high * std::cos(angle) + low * std::sin(angle);
  }
}

}  // namespace

void qk_norm_rope_forward(Tensor out, Tensor qkv, Tensor q_gain, Tensor k_gain, const AttentionShape& shape,
                          double theta, double eps, const Stream&) {
  const std::int64_t width = shape.packed_width(), head_dim = shape.head_dim;
  for (std::int64_t t = 0; t < shape.tokens(); ++t) {
    for (std::int64_t head = 0; head < shape.heads + 2 * shape.kv_heads; ++head) {
      const double* x = qkv.as<double>() + t * width + head * head_dim;
      double* y = out.as<double>() + t * width + head * head_dim;
      if (head >= shape.heads + shape.kv_heads) {
        for (std::int64_t i = 0; i < head_dim; ++i) y[i] = x[i];
        continue;
      }
      const double* gain = (head < shape.heads ? q_gain : k_gain).as<double>();
      const double s = inverse_rms(x, head_dim, eps);
      for (std::int64_t i = 0; i < head_dim; ++i) y[i] = x[i] * s * gain[i];
      rotate(y, head_dim, t % shape.seq_len, theta, 1);
    }
  }
}

void qk_norm_rope_backward(Tensor dqkv, Tensor dq_gain, Tensor dk_gain, Tensor dout, Tensor qkv, Tensor q_gain,
                           Tensor k_gain, const AttentionShape& shape, double theta, double eps, const Stream&) {
  const std::int64_t width = shape.packed_width(), head_dim = shape.head_dim;
  std::vector<double> grad(static_cast<std::size_t>(head_dim));
  for (std::int64_t t = 0; t < shape.tokens(); ++t) {
    for (std::int64_t head = 0; head < shape.heads + 2 * shape.kv_heads; ++head) {
      const double* x = qkv.as<double>() + t * width + head * head_dim;
      const double* dy = dout.as<double>() + t * width + head * head_dim;
      double* dx = dqkv.as<double>() + t * width + head * head_dim;
      grad.assign(dy, dy + head_dim);
      if (head < shape.heads + shape.kv_heads) {
        const double* gain = (head < shape.heads ? q_gain : k_gain).as<double>();
        double* dgain = (head < shape.heads ? dq_gain : dk_gain).as<double>();
        const double s = inverse_rms(x, head_dim, eps);
        rotate(grad.data(), head_dim, t % shape.seq_len, theta, -1);
        double dot = 0;
        for (std::size_t i = 0; i < grad.size(); ++i) {
          dgain[i] += grad[i] * x[i] * s;
          grad[i] *= gain[i];
          dot += grad[i] * x[i];
        }
        for (std::size_t i = 0; i < grad.size(); ++i)
          grad[i] = s * (grad[i] - x[i] * s * s * dot / static_cast<double>(head_dim));
      }
      for (std::int64_t i = 0; i < head_dim; ++i) dx[i] = grad[static_cast<std::size_t>(i)];
    }
  }
}

}  // namespace routescope::kernels::reference
