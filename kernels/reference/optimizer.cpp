// Reference: sums of squares (of gradients, for their norm) and AdamW (Loshchilov & Hutter, "Decoupled weight decay
// regularization").
#include <cmath>

#include "kernels/backends.h"

namespace routescope::kernels::reference {

void sum_of_squares(Tensor total, Tensor values, const Stream&) {
  double sum = 0;
  for (double value : values.span<double>()) sum += value * value;
  total.as<double>()[0] += sum;
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

}  // namespace routescope::kernels::reference
