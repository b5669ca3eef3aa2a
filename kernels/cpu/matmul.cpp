// CPU: the matrix product. The result is cut into tiles whose extents depend on the product's shape only, and each tile
// is one single-threaded product by oneDNN (product.h): the same bits for every number of threads.
#include <cstddef>
#include <vector>

#include "kernels/backends.h"
#include "kernels/cpu/parts/parallel.h"
#include "kernels/cpu/parts/product.h"

namespace routescope::kernels::cpu {

namespace {

/// Tiles of this size reach the rate of an uncut product. A smaller result is cut into at least kFewest tiles, if they
/// keep kSmallest rows, so that a few threads have equal shares.
constexpr std::int64_t kTileRows = 256, kTileColumns = 512, kFewest = 8, kSmallest = 64;

/// A cut of an extent into `number` equal tiles, rounded up to whole vectors.
Chunks cut(std::int64_t extent, std::int64_t number) {
  return {extent, ((extent + number - 1) / number + 15) / 16 * 16};
}

std::int64_t tiles_of(std::int64_t extent, std::int64_t size) {
  return (extent + size - 1) / size;
}

const std::byte* at(const Tensor& t, std::int64_t row, std::int64_t column) {
  return static_cast<const std::byte*>(t.data) + static_cast<std::size_t>(row * t.shape[1] + column) * size_of(t.dtype);
}

}  // namespace

bool has_products() {
  return Product::built();
}

void matmul(Tensor c, Tensor a, Transpose transpose_a, Tensor b, Transpose transpose_b, bool accumulate,
            const Stream& stream) {
  const bool ta = transpose_a == Transpose::yes, tb = transpose_b == Transpose::yes;
  const std::int64_t m = c.shape[0], n = c.shape[1], k = ta ? a.shape[0] : a.shape[1];
  if (m == 0 || n == 0) return;
  if (k == 0) {
    if (!accumulate) fill(c, 0, stream);
    return;
  }
  const std::int64_t across = tiles_of(n, kTileColumns), wanted = tiles_of(kFewest, across);
  const Chunks column_tiles = cut(n, across);
  const Chunks row_tiles = cut(m, std::max(tiles_of(m, kTileRows), std::min(wanted, tiles_of(m, kSmallest))));
  const std::int64_t last_m = m - (row_tiles.number() - 1) * row_tiles.size;
  const std::int64_t last_n = n - (column_tiles.number() - 1) * column_tiles.size;
  const auto product_of = [&](std::int64_t tile_m, std::int64_t tile_n) {
    return &Product::of({tile_m, tile_n, k, a.shape[1], b.shape[1], n, a.dtype, c.dtype, ta, tb, accumulate});
  };
  // [is the last row tile][is the last column tile]
  const Product* products[2][2] = {{product_of(std::min(m, row_tiles.size), std::min(n, column_tiles.size)),
                                    product_of(std::min(m, row_tiles.size), last_n)},
                                   {product_of(last_m, std::min(n, column_tiles.size)), product_of(last_m, last_n)}};
  const std::int64_t number = row_tiles.number() * column_tiles.number();
  // Always a parallel region, so that oneDNN does not open its own.
#pragma omp parallel for schedule(dynamic, 1)
  for (std::int64_t tile = 0; tile < number; ++tile) {
    const std::int64_t i = tile % row_tiles.number(), j = tile / row_tiles.number();
    const std::int64_t row = i * row_tiles.size, column = j * column_tiles.size;
    const Product* product = products[i + 1 == row_tiles.number()][j + 1 == column_tiles.number()];
    product->run(const_cast<std::byte*>(at(c, row, column)), ta ? at(a, 0, row) : at(a, row, 0),
                 tb ? at(b, column, 0) : at(b, 0, column));
  }
}

}  // namespace routescope::kernels::cpu
