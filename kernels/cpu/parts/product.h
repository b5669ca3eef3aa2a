// One matrix product on one thread by oneDNN, over operands with leading dimensions. matmul cuts its work into such
// products. oneDNN chooses the kernel of each for one thread, whatever the number of threads, so the bits stay the
// same.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/op_types.h"

namespace routescope::kernels::cpu {

/// c [m, n] = op(a) op(b) (+ c). A leading dimension is the distance between rows as stored.
struct ProductShape {
  std::int64_t m, n, k;
  std::int64_t lda, ldb, ldc;
  DType operands;  // f32 or bf16
  DType result;    // f32 or bf16
  bool transpose_a, transpose_b;
  bool accumulate;

  bool operator==(const ProductShape&) const = default;
};

/// A product prepared for one shape. A process makes one for each shape, keeps it, and may run it on any thread.
class Product {
 public:
  /// Whether this build has products (ROUTESCOPE_CPU).
  static bool built();
  /// From the cache, or made now. Do not call it inside a parallel region. Throws std::runtime_error in a build without
  /// products.
  static const Product& of(const ProductShape& shape);
  /// Runs on the calling thread, which must be inside a parallel region.
  void run(void* c, const void* a, const void* b) const;

  struct Parts;
  explicit Product(const ProductShape& shape);
  ~Product();

 private:
  std::unique_ptr<Parts> parts_;
};

}  // namespace routescope::kernels::cpu
