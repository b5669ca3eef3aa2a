// Reference: rows of the embedding matrix, and their gradient.
#include "kernels/backends.h"

namespace routescope::kernels::reference {

void embedding_forward(Tensor out, Tensor ids, Tensor weight, const Stream&) {
  const std::int64_t tokens = out.shape[0], d = out.shape[1];
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t j = 0; j < d; ++j)
      out.as<double>()[t * d + j] = weight.as<double>()[ids.as<std::int32_t>()[t] * d + j];
}

void embedding_backward(Tensor dweight, Tensor dout, Tensor ids, const Stream&) {
  const std::int64_t tokens = dout.shape[0], d = dout.shape[1];
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t j = 0; j < d; ++j)
      dweight.as<double>()[ids.as<std::int32_t>()[t] * d + j] += dout.as<double>()[t * d + j];
}

}  // namespace routescope::kernels::reference
