// Reference: global gradient norm and AdamW (Loshchilov & Hutter, "Decoupled weight decay regularization").
#include <algorithm>
#include <cmath>

#include "kernels/backends.h"

namespace routescope::reference {

void gradient_norm(Tensor norm, Tensor scale, Tensor grads, double max_norm, const Stream&) {
  double sum = 0;
  for (double g : grads.span<double>()) sum += g * g;
  norm.as<double>()[0] = std::sqrt(sum);
  scale.as<double>()[0] = max_norm > 0 ? std::min(1.0, max_norm / (std::sqrt(sum) + 1e-6)) : 1.0;
}

void adamw(Tensor param, Tensor exp_avg, Tensor exp_avg_sq, Tensor grad, Tensor scale, const AdamWParams& params,
           const Stream&) {
  const double correction1 = 1 - std::pow(params.beta1, static_cast<double>(params.step));
  const double correction2 = 1 - std::pow(params.beta2, static_cast<double>(params.step));
  for (std::int64_t i = 0; i < param.numel(); ++i) {
    const double g = scale.as<double>()[0] * grad.as<double>()[i];
    double& m = exp_avg.as<double>()[i];
    double& v = exp_avg_sq.as<double>()[i];
    double& x = param.as<double>()[i];
    m = params.beta1 * m + (1 - params.beta1) * g;
    v = params.beta2 * v + (1 - params.beta2) * g * g;
    x -= params.learning_rate * (m / correction1 / (std::sqrt(v / correction2) + params.eps) + params.weight_decay * x);
  }
}

}  // namespace routescope::reference
