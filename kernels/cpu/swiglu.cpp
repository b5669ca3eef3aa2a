// CPU: SwiGLU.  act = silu(gate) up,  silu(g) = g sigmoid(g),  silu'(g) = sigmoid(g) (1 + g (1 - sigmoid(g)))
#include "kernels/backends.h"
#include "kernels/cpu/parts/exp.h"
#include "kernels/cpu/parts/operand.h"
#include "kernels/cpu/parts/parallel.h"

namespace routescope::kernels::cpu {

void swiglu_forward(Tensor act, Tensor gate_up, const Stream&) {
  const std::int64_t tokens = act.shape[0], f = act.shape[1];
  with_operand(act, [&]<class T>(T* out) {
    parallel_for(row_chunks(tokens, 2 * f), [&](std::int64_t, std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        const float* gate = gate_up.as<float>() + t * 2 * f;
        const float* up = gate + f;
        T* to = out + t * f;
        for_columns(f, [=](auto at) {
          const Vec g = at.load(gate);
          at.store(to, g * sigmoid(g) * at.load(up));
        });
      }
    });
  });
}

void swiglu_backward(Tensor dgate_up, Tensor dact, Tensor gate_up, const Stream&) {
  const std::int64_t tokens = dact.shape[0], f = dact.shape[1];
  with_operand(dgate_up, [&]<class T>(T* out) {
    parallel_for(row_chunks(tokens, 2 * f), [&](std::int64_t, std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        const float* gate = gate_up.as<float>() + t * 2 * f;
        const float* up = gate + f;
        const float* grad = dact.as<float>() + t * f;
        T* dgate = out + t * 2 * f;
        T* dup = dgate + f;
        for_columns(f, [=](auto at) {
          const Vec g = at.load(gate), weight = sigmoid(g), scaled = at.load(grad) * weight;
          at.store(dgate, scaled * at.load(up) * (1.0f + g * (1.0f - weight)));
          at.store(dup, scaled * g);
        });
      }
    });
  });
}

}  // namespace routescope::kernels::cpu
