// Reference: the matrix product.
#include "kernels/backends.h"

namespace routescope::kernels::reference {

void matmul(Tensor c, Tensor a, Transpose transpose_a, Tensor b, Transpose transpose_b, bool accumulate,
            const Stream&) {
  const bool ta = transpose_a == Transpose::yes, tb = transpose_b == Transpose::yes;
  const std::int64_t m = c.shape[0], n = c.shape[1], k = ta ? a.shape[0] : a.shape[1];
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (std::int64_t l = 0; l < k; ++l)
        sum += a.as<double>()[ta ? l * m + i : i * k + l] * b.as<double>()[tb ? j * k + l : l * n + j];
      double& out = c.as<double>()[i * n + j];
      out = accumulate ? out + sum : sum;
    }
  }
}

}  // namespace routescope::kernels::reference
