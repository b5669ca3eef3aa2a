// CUDA: the matrix product, by cuBLASLt. cuBLASLt takes column-major matrices. A row-major matrix read as column-major
// is its transpose, and c = op(a) op(b) is c^T = op(b)^T op(a)^T: so b goes first, a second, and the transposes stay.
//
// Sums are f32: bf16 operands are multiplied exactly and added in f32, and f32 operands are multiplied in f32, not
// tf32. Results are the same bits every time: an algorithm that splits k is used only if it adds the parts in f32 in a
// pass of its own, not in place. products.h says which algorithm a shape gets.
#include <cublasLt.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/backends.h"
#include "kernels/cuda/products.h"

namespace routescope::kernels::cuda {

namespace {

void check(cublasStatus_t status, const std::string& what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw std::runtime_error("cuBLASLt: " + what + ": " + cublasLtGetStatusString(status));
}
void check(cudaError_t status, const std::string& what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // clears the error, for the next call
  throw std::runtime_error("CUDA: " + what + ": " + cudaGetErrorString(status));
}

cudaDataType_t type_of(DType dtype) {
  return dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F;
}

/// Everything that an algorithm depends on. a, b, c as the caller of matmul means them.
struct Shape {
  int device;
  std::int64_t m, n, k;
  DType operand, result;
  bool transpose_a, transpose_b, accumulate;
  std::uint32_t align_a, align_b, align_c;

  auto fields() const {
    return std::tie(device, m, n, k, operand, result, transpose_a, transpose_b, accumulate, align_a, align_b, align_c);
  }
  bool operator<(const Shape& other) const { return fields() < other.fields(); }

  std::string name() const {
    return "product of [" + std::to_string(m) + ", " + std::to_string(k) + "] and [" + std::to_string(k) + ", " +
           std::to_string(n) + "] in " + (operand == DType::bf16 ? "bf16" : "f32");
  }
};

/// The largest power of two, up to 256, that the address is a multiple of.
std::uint32_t alignment_of(const Tensor& t) {
  const auto address = reinterpret_cast<std::uintptr_t>(t.data);
  std::uint32_t alignment = 256;
  while (address % alignment != 0) alignment /= 2;
  return alignment;
}

template <class Handle, cublasStatus_t (*destroy)(Handle)>
struct Destroy {
  using pointer = Handle;
  void operator()(Handle handle) const { destroy(handle); }
};
using Description =
    std::unique_ptr<cublasLtMatmulDescOpaque_t, Destroy<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>>;
using Layout =
    std::unique_ptr<cublasLtMatrixLayoutOpaque_t, Destroy<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>>;
using Preference = std::unique_ptr<cublasLtMatmulPreferenceOpaque_t,
                                   Destroy<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>>;

/// A row-major [rows, columns] as cuBLASLt sees it.
Layout layout_of(DType dtype, std::int64_t rows, std::int64_t columns) {
  cublasLtMatrixLayout_t layout = nullptr;
  check(cublasLtMatrixLayoutCreate(&layout, type_of(dtype), static_cast<std::uint64_t>(columns),
                                   static_cast<std::uint64_t>(rows), columns),
        "describing a matrix");
  return Layout(layout);
}

/// cuBLASLt's handle for the current device; it lives as long as the process.
cublasLtHandle_t handle_for(int device) {
  static std::mutex mutex;
  static std::map<int, cublasLtHandle_t> handles;
  const std::lock_guard lock(mutex);
  cublasLtHandle_t& handle = handles[device];
  if (!handle) check(cublasLtCreate(&handle), "starting on device " + std::to_string(device));
  return handle;
}

struct Operands {
  void* c;
  const void* a;
  const void* b;
  void* workspace;
  cudaStream_t stream;
};

/// The product of one shape: its descriptions, the algorithms that cuBLASLt offers, and the one in use.
class Product {
 public:
  explicit Product(const Shape& shape)
      : shape_(shape),
        a_(shape.transpose_a ? layout_of(shape.operand, shape.k, shape.m) : layout_of(shape.operand, shape.m, shape.k)),
        b_(shape.transpose_b ? layout_of(shape.operand, shape.n, shape.k) : layout_of(shape.operand, shape.k, shape.n)),
        c_(layout_of(shape.result, shape.m, shape.n)) {
    cublasLtMatmulDesc_t description = nullptr;
    check(cublasLtMatmulDescCreate(&description, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describing a " + shape_.name());
    description_.reset(description);
    set(CUBLASLT_MATMUL_DESC_TRANSA, shape.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_TRANSB, shape.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    find_candidates();
  }

  void run(const Operands& operands) const { check(start(*chosen_, operands, operands.c), shape_.name()); }

  bool tuned() const { return tuned_; }
  /// Times the candidates on these operands, into memory of their own, and keeps the fastest.
  void tune(const Operands& operands) {
    tuned_ = true;
    if (candidates_.size() == 1) return;
    const std::size_t bytes = static_cast<std::size_t>(shape_.m * shape_.n) * size_of(shape_.result);
    void* scratch = nullptr;
    if (cudaMalloc(&scratch, bytes) != cudaSuccess) {
      // There is no memory left for it: the heuristic's choice stays.
      cudaGetLastError();
      return;
    }
    const std::unique_ptr<void, decltype(&cudaFree)> release(scratch, cudaFree);
    double best = std::numeric_limits<double>::infinity();
    for (const cublasLtMatmulAlgo_t& candidate : candidates_) {
      const double seconds = time(candidate, operands, scratch);
      if (seconds < best) {
        best = seconds;
        chosen_ = &candidate;
      }
    }
  }

 private:
  static constexpr int kMostCandidates = 8;
  static constexpr int kRepetitions = 5;

  void set(cublasLtMatmulDescAttributes_t attribute, cublasOperation_t value) {
    const auto number = static_cast<std::int32_t>(value);
    check(cublasLtMatmulDescSetAttribute(description_.get(), attribute, &number, sizeof number),
          "describing a " + shape_.name());
  }

  void find_candidates() {
    cublasLtMatmulPreference_t created = nullptr;
    check(cublasLtMatmulPreferenceCreate(&created), "choosing an algorithm");
    const Preference preference(created);
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      check(cublasLtMatmulPreferenceSetAttribute(created, attribute, &value, sizeof value), "choosing an algorithm");
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{kProductWorkspace - 256});
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
           static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, shape_.align_b);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, shape_.align_a);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, shape_.align_c);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, shape_.align_c);
    std::array<cublasLtMatmulHeuristicResult_t, kMostCandidates> results{};
    int found = 0;
    check(cublasLtMatmulAlgoGetHeuristic(handle_for(shape_.device), description_.get(), b_.get(), a_.get(), c_.get(),
                                         c_.get(), created, kMostCandidates, results.data(), &found),
          "choosing an algorithm for a " + shape_.name());
    for (int i = 0; i < found; ++i)
      if (results[static_cast<std::size_t>(i)].state == CUBLAS_STATUS_SUCCESS)
        candidates_.push_back(results[static_cast<std::size_t>(i)].algo);
    if (candidates_.empty()) throw std::runtime_error("cuBLASLt: no algorithm for a " + shape_.name());
    chosen_ = candidates_.data();
  }

  cublasStatus_t start(const cublasLtMatmulAlgo_t& algorithm, const Operands& operands, void* c) const {
    const float one = 1, beta = shape_.accumulate ? 1.0f : 0.0f;
    return cublasLtMatmul(handle_for(shape_.device), description_.get(), &one, operands.b, b_.get(), operands.a,
                          a_.get(), &beta, c, c_.get(), c, c_.get(), &algorithm, operands.workspace,
                          kProductWorkspace - 256, operands.stream);
  }

  /// The shortest of some runs, in seconds; infinity for an algorithm that does not run.
  double time(const cublasLtMatmulAlgo_t& algorithm, const Operands& operands, void* c) const {
    const auto event = [] {
      cudaEvent_t created = nullptr;
      check(cudaEventCreate(&created), "creating an event");
      return std::unique_ptr<CUevent_st, decltype(&cudaEventDestroy)>(created, cudaEventDestroy);
    };
    const auto begin = event(), end = event();
    double best = std::numeric_limits<double>::infinity();
    if (start(algorithm, operands, c) != CUBLAS_STATUS_SUCCESS) return best;
    for (int i = 0; i < kRepetitions; ++i) {
      check(cudaEventRecord(begin.get(), operands.stream), "recording an event");
      check(start(algorithm, operands, c), shape_.name());
      check(cudaEventRecord(end.get(), operands.stream), "recording an event");
      check(cudaEventSynchronize(end.get()), shape_.name());
      float milliseconds = 0;
      check(cudaEventElapsedTime(&milliseconds, begin.get(), end.get()), "time between events");
      best = std::min(best, static_cast<double>(milliseconds) * 1e-3);
    }
    return best;
  }

  Shape shape_;
  Description description_;
  Layout a_, b_, c_;
  std::vector<cublasLtMatmulAlgo_t> candidates_;  // best by the heuristic first
  const cublasLtMatmulAlgo_t* chosen_ = nullptr;
  bool tuned_ = false;
};

bool may_tune(cudaStream_t stream) {
  if (!product_tuning) return false;
  const char* wanted = std::getenv("ROUTESCOPE_TUNE");
  if (wanted && std::strcmp(wanted, "0") == 0) return false;
  // No timing is possible on a stream that is being recorded.
  cudaStreamCaptureStatus recording = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(stream, &recording), "asking a stream whether it is recorded");
  return recording == cudaStreamCaptureStatusNone;
}

}  // namespace

void matmul(Tensor c, Tensor a, Transpose transpose_a, Tensor b, Transpose transpose_b, bool accumulate,
            const Stream& stream) {
  Shape shape{};
  shape.transpose_a = transpose_a == Transpose::yes;
  shape.transpose_b = transpose_b == Transpose::yes;
  shape.m = c.shape[0];
  shape.n = c.shape[1];
  shape.k = shape.transpose_a ? a.shape[0] : a.shape[1];
  if (shape.m == 0 || shape.n == 0) return;
  if (shape.k == 0) {
    if (!accumulate) fill(c, 0, stream);
    return;
  }
  if (a.dtype == DType::f32 && c.dtype == DType::bf16)
    throw std::invalid_argument("matmul: a product of f32 into bf16, expected a result in f32");
  check(cudaGetDevice(&shape.device), "no device");
  shape.operand = a.dtype;
  shape.result = c.dtype;
  shape.accumulate = accumulate;
  shape.align_a = alignment_of(a);
  shape.align_b = alignment_of(b);
  shape.align_c = alignment_of(c);

  auto workspace = reinterpret_cast<std::uintptr_t>(Scratch(stream).take<std::byte>(kProductWorkspace));
  workspace = (workspace + 255) / 256 * 256;
  const Operands operands{c.data, a.data, b.data, reinterpret_cast<void*>(workspace),
                          static_cast<cudaStream_t>(stream.handle)};

  // Locked while the product is put on the stream: its algorithm may change until it has been tuned.
  static std::mutex mutex;
  static std::map<Shape, Product> products;
  const std::lock_guard lock(mutex);
  auto found = products.find(shape);
  if (found == products.end())
    found =
        products.emplace(std::piecewise_construct, std::forward_as_tuple(shape), std::forward_as_tuple(shape)).first;
  Product& product = found->second;
  if (!product.tuned() && may_tune(operands.stream)) product.tune(operands);
  product.run(operands);
}

}  // namespace routescope::kernels::cuda
