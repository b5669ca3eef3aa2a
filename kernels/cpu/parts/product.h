// One matrix product on one thread by oneDNN, over operands with leading dimensions: what matmul and attention cut
// their work into. A product's kernel is chosen for one thread whatever the number of threads, which keeps its bits the
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

/// A product made ready for one shape. Made once a process and shape, kept for its life, safe to run on any thread.
class Product {
 public:
  /// Found in the cache, or made. Not to be called inside a parallel region.
  static const Product& of(const ProductShape& shape);
  /// Runs on the calling thread, which has to be inside a parallel region.
  void run(void* c, const void* a, const void* b) const;

  struct Parts;
  explicit Product(const ProductShape& shape);
  ~Product();

 private:
  std::unique_ptr<Parts> parts_;
};

}  // namespace routescope::kernels::cpu
