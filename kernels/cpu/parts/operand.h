// Operand tensors are f32 or bf16: calls a generic body with a pointer of the right type.
#pragma once

#include "kernels/bf16.h"

namespace routescope::kernels::cpu {

template <class Body>
void with_operand(const Tensor& t, Body&& body) {
  if (t.dtype == DType::bf16) {
    body(t.as<bf16>());
  } else {
    body(t.as<float>());
  }
}

}  // namespace routescope::kernels::cpu
