// SwiGLU.  act = silu(gate) up,  silu(g) = g sigmoid(g),  silu'(g) = sigmoid(g) (1 + g (1 - sigmoid(g)))
// act [tokens, f] of gate_up [tokens, 2f], whose row is gate, then up. Bytes a token: forward 3 f b, backward 5 f b
// (dact and the pair in, the pair out). Aim: 90 % of the copy bandwidth forward, 85 % backward. A thread keeps to its
// 16-byte column and takes a few rows at once, so that eight (backward six) loads are on their way before the first
// exponential; columns are the grid's second axis, so nothing is divided.
#include "kernels/backends.h"
#include "kernels/cuda/vec.h"

namespace routescope::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kForwardRows = 4;
constexpr int kBackwardRows = 2;

__device__ inline float sigmoid(float x) {
  return __fdividef(1.0f, 1.0f + expf(-x));
}

template <class T>
Grid grid_of(std::int64_t tokens, std::int64_t f, int rows) {
  return {dim3(static_cast<unsigned>(ceil_div<std::int64_t>(tokens, rows)),
               static_cast<unsigned>(ceil_div<std::int64_t>(f, kThreads * kVec<T>))),
          kThreads};
}
template <class T>
__device__ int first_column() {
  return static_cast<int>(blockIdx.y * kThreads + threadIdx.x) * kVec<T>;
}

template <class T>
__global__ void __launch_bounds__(kThreads) swiglu_forward_kernel(T* __restrict__ act, const T* __restrict__ gate_up,
                                                                  std::int64_t tokens, int f, bool aligned) {
  const int column = first_column<T>();
  if (column >= f) return;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kForwardRows;
  Vec<T> gate[kForwardRows], up[kForwardRows];
#pragma unroll
  for (int r = 0; r < kForwardRows; ++r) {
    if (first + r >= tokens) break;
    const T* row = gate_up + (first + r) * 2 * f;
    gate[r] = load_row(row, column, f, aligned);
    up[r] = load_row(row + f, column, f, aligned);
  }
#pragma unroll
  for (int r = 0; r < kForwardRows; ++r) {
    if (first + r >= tokens) break;
    Vec<T> out;
#pragma unroll
    for (int i = 0; i < kVec<T>; ++i) out.value[i] = gate[r].value[i] * sigmoid(gate[r].value[i]) * up[r].value[i];
    store_row(act + (first + r) * f, column, f, aligned, out);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    swiglu_backward_kernel(T* __restrict__ dgate_up, const T* __restrict__ dact, const T* __restrict__ gate_up,
                           std::int64_t tokens, int f, bool aligned) {
  const int column = first_column<T>();
  if (column >= f) return;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kBackwardRows;
  Vec<T> gate[kBackwardRows], up[kBackwardRows], grad[kBackwardRows];
#pragma unroll
  for (int r = 0; r < kBackwardRows; ++r) {
    if (first + r >= tokens) break;
    const T* row = gate_up + (first + r) * 2 * f;
    gate[r] = load_row(row, column, f, aligned);
    up[r] = load_row(row + f, column, f, aligned);
    grad[r] = load_row(dact + (first + r) * f, column, f, aligned);
  }
#pragma unroll
  for (int r = 0; r < kBackwardRows; ++r) {
    if (first + r >= tokens) break;
    Vec<T> dgate, dup;
#pragma unroll
    for (int i = 0; i < kVec<T>; ++i) {
      const float g = gate[r].value[i], s = sigmoid(g);
      dgate.value[i] = grad[r].value[i] * up[r].value[i] * s * (1.0f + g * (1.0f - s));
      dup.value[i] = grad[r].value[i] * g * s;
    }
    T* row = dgate_up + (first + r) * 2 * f;
    store_row(row, column, f, aligned, dgate);
    store_row(row + f, column, f, aligned, dup);
  }
}

}  // namespace

void swiglu_forward(Tensor act, Tensor gate_up, const Stream& stream) {
  require_one_type("swiglu_forward", act, gate_up);
  const std::int64_t tokens = act.shape[0], f = act.shape[1];
  with_type(act, [&]<class T>(T) {
    const bool aligned = rows_aligned(act.as<T>(), f) && rows_aligned(gate_up.as<T>(), f);
    launch("swiglu_forward", swiglu_forward_kernel<T>, grid_of<T>(tokens, f, kForwardRows), stream, act.as<T>(),
           gate_up.as<T>(), tokens, f, aligned);
  });
}

void swiglu_backward(Tensor dgate_up, Tensor dact, Tensor gate_up, const Stream& stream) {
  require_one_type("swiglu_backward", dgate_up, dact, gate_up);
  const std::int64_t tokens = dact.shape[0], f = dact.shape[1];
  with_type(dact, [&]<class T>(T) {
    const bool aligned =
        rows_aligned(dgate_up.as<T>(), f) && rows_aligned(dact.as<T>(), f) && rows_aligned(gate_up.as<T>(), f);
    launch("swiglu_backward", swiglu_backward_kernel<T>, grid_of<T>(tokens, f, kBackwardRows), stream, dgate_up.as<T>(),
           dact.as<T>(), gate_up.as<T>(), tokens, f, aligned);
  });
}

}  // namespace routescope::cuda
