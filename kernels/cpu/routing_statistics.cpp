// CPU: the routing record's sums over tokens, in double: alpha, alpha^2 and rms of each column, and the entropy.
#include <cmath>

#include "kernels/backends.h"
#include "kernels/cpu/parts/parallel.h"

namespace routescope::kernels::cpu {

void routing_statistics(Tensor sums, Tensor entropy, Tensor alpha, std::span<const Tensor> inv_rms,
                        const Stream& stream) {
  const std::int64_t tokens = alpha.shape[0], columns = alpha.shape[1], width = 3 * columns + 1;
  const Chunks chunks = reduction_chunks(tokens);
  Scratch scratch(stream);
  double* partials = scratch.take<double>(static_cast<std::size_t>(kMaxPartials * width));
  parallel_for(chunks, [&](std::int64_t c, std::int64_t begin, std::int64_t end) {
    double* partial = partials + c * width;
    std::fill(partial, partial + width, 0.0);
    for (std::int64_t t = begin; t < end; ++t) {
      for (std::int64_t i = 0; i < columns; ++i) {
        const double a = static_cast<double>(alpha.as<float>()[t * columns + i]);
        partial[i] += a;
        partial[columns + i] += a * a;
        partial[2 * columns + i] += 1 / static_cast<double>(inv_rms[static_cast<std::size_t>(i)].as<float>()[t]);
        if (a > 0) partial[3 * columns] -= a * std::log(a);
      }
    }
  });
  for (std::int64_t c = 0; c < chunks.number(); ++c) {
    for (std::int64_t i = 0; i < 3 * columns; ++i) sums.as<double>()[i] += partials[c * width + i];
    entropy.as<double>()[0] += partials[c * width + 3 * columns];
  }
}

}  // namespace routescope::kernels::cpu
