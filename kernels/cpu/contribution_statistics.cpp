// CPU: sums over tokens of what the sources of a read contribute. A token's rows come from memory for the mixture h,
// and from the cache for their products with it.
#include <cmath>

#include "kernels/backends.h"
#include "kernels/cpu/parts/parallel.h"
#include "kernels/cpu/parts/per_thread.h"
#include "kernels/cpu/parts/read.h"

namespace routescope::kernels::cpu {

namespace {

/// One token's values v_0 .. v_n.
struct ValueRow {
  std::span<const Tensor> values;
  std::int64_t token;

  std::int64_t count() const { return static_cast<std::int64_t>(values.size()); }
  const float* value(std::int64_t i) const {
    const Tensor& value = values[static_cast<std::size_t>(i)];
    return value.as<float>() + token * value.shape[1];
  }
};

}  // namespace

void contribution_statistics(Tensor sums, Tensor alpha, std::span<const Tensor> values, const Stream& stream) {
  const std::int64_t tokens = alpha.shape[0], columns = alpha.shape[1], d = values.front().shape[1];
  const Chunks chunks = reduction_chunks(tokens);
  Scratch scratch(stream);
  const PerThread rows(scratch, d + 2 * columns);
  double* partials = scratch.take<double>(static_cast<std::size_t>(kMaxPartials * 2 * columns));
  parallel_for(chunks, [&](std::int64_t c, std::int64_t begin, std::int64_t end) {
    double* partial = partials + c * 2 * columns;
    std::fill(partial, partial + 2 * columns, 0.0);
    float *h = rows.mine(), *products = h + d, *lengths = products + columns;
    for (std::int64_t t = begin; t < end; ++t) {
      const ValueRow v{values, t};
      const float* weight = alpha.as<float>() + t * columns;
      weighted_sums(
          v, d, [=](std::int64_t i) { return weight[i]; }, [=](auto at, Vec sum) { at.store(h, sum); });
      dots(products, h, v, d);
      double length = 0;
      for (std::int64_t i = 0; i < columns; ++i) {
        lengths[i] = std::fabs(weight[i]) * std::sqrt(sum_of_squares(v.value(i), d));
        length += static_cast<double>(lengths[i]);
      }
      const double square = static_cast<double>(sum_of_squares(h, d));
      for (std::int64_t i = 0; i < columns; ++i) {
        const auto a = static_cast<double>(weight[i]);
        partial[i] += square > 0 ? a * static_cast<double>(products[i]) / square : a;
        partial[columns + i] += length > 0 ? static_cast<double>(lengths[i]) / length : a;
      }
    }
  });
  for (std::int64_t c = 0; c < chunks.number(); ++c)
    for (std::int64_t i = 0; i < 2 * columns; ++i) sums.as<double>()[i] += partials[c * 2 * columns + i];
}

}  // namespace routescope::kernels::cpu
