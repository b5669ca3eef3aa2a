// CPU: rows of the embedding matrix, and their gradient.
#include <cstring>

#include "kernels/backends.h"
#include "kernels/cpu/parts/parallel.h"
#include "kernels/cpu/parts/vec.h"

namespace routescope::kernels::cpu {

void embedding_forward(Tensor out, Tensor ids, Tensor weight, const Stream&) {
  const std::int64_t tokens = out.shape[0], d = out.shape[1];
  parallel_for(row_chunks(tokens, d), [&](std::int64_t, std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      float* to = out.as<float>() + t * d;
      const std::int64_t row = ids.as<std::int32_t>()[t] * d;
      if (weight.dtype == DType::bf16) {
        const bf16* from = weight.as<bf16>() + row;
        for_columns(d, [&](auto at) { at.store(to, at.load(from)); });
      } else {
        std::memcpy(to, weight.as<float>() + row, static_cast<std::size_t>(d) * sizeof(float));
      }
    }
  });
}

/// Threads share the columns, not the tokens: each row's contributions are added in token order.
void embedding_backward(Tensor dweight, Tensor dout, Tensor ids, const Stream&) {
  const std::int64_t tokens = dout.shape[0], d = dout.shape[1];
  constexpr std::int64_t kColumns = 64;
  parallel_for(Chunks{d, kColumns}, [&](std::int64_t, std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = 0; t < tokens; ++t) {
      float* to = dweight.as<float>() + ids.as<std::int32_t>()[t] * d;
      const float* from = dout.as<float>() + t * d;
#pragma omp simd
      for (std::int64_t j = begin; j < end; ++j) to[j] += from[j];
    }
  });
}

}  // namespace routescope::kernels::cpu
