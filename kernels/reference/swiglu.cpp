// Reference: SwiGLU.  act = silu(gate) up,  silu(g) = g sigmoid(g),  silu'(g) = sigmoid(g) (1 + g (1 - sigmoid(g)))
#include <cmath>

#include "kernels/backends.h"

namespace routescope::kernels::reference {

void swiglu_forward(Tensor act, Tensor gate_up, const Stream&) {
  const std::int64_t tokens = act.shape[0], f = act.shape[1];
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t j = 0; j < f; ++j) {
      const double gate = gate_up.as<double>()[t * 2 * f + j], up = gate_up.as<double>()[t * 2 * f + f + j];
      act.as<double>()[t * f + j] = gate / (1 + std::exp(-gate)) * up;
    }
  }
}

void swiglu_backward(Tensor dgate_up, Tensor dact, Tensor gate_up, const Stream&) {
  const std::int64_t tokens = dact.shape[0], f = dact.shape[1];
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t j = 0; j < f; ++j) {
      const double gate = gate_up.as<double>()[t * 2 * f + j], up = gate_up.as<double>()[t * 2 * f + f + j];
      const double grad = dact.as<double>()[t * f + j];
      const double sigmoid = 1 / (1 + std::exp(-gate));
      dgate_up.as<double>()[t * 2 * f + j] = grad * up * sigmoid * (1 + gate * (1 - sigmoid));
      dgate_up.as<double>()[t * 2 * f + f + j] = grad * gate * sigmoid;
    }
  }
}

}  // namespace routescope::kernels::reference
