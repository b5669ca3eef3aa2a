// Filling, converting, random numbers, addition.
//   fill: dst = value;   cast: dst = src in dst's type;   add: dst += src;   random_normal: random.h's numbers
// Shapes [n], any n. A thread moves one group of eight or fewer elements (16 bytes of the narrower type), all loads
// before the first use, and there is no loop over groups: with 2048 threads on a multiprocessor, twice as many bytes
// are in flight as the memory's latency needs. Bytes an element: fill b, cast b_src + b_dst, add 3 b. Aim: 90 % of the
// copy bandwidth. random_normal does two logarithms, roots, sines and cosines in double for each four numbers and is
// bound by these; it runs once. (Its stack frame comes from the sine's reduction of huge angles, which never runs.)
#include <bit>

#include "kernels/backends.h"
#include "kernels/cuda/parts/vec.h"
#include "kernels/random.h"

namespace routescope::kernels::cuda {

namespace {

constexpr int kThreads = 256;

/// One thread for each group of `group` elements.
Grid groups_of(std::int64_t n, int group) {
  return {dim3(static_cast<unsigned>(ceil_div<std::int64_t>(n, std::int64_t{group} * kThreads))), kThreads};
}
__device__ inline std::int64_t thread_index() {
  return static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

/// Elements [0, count) of a group that may be the array's last, shorter one.
template <int kGroup>
__device__ int group_size(std::int64_t begin, std::int64_t n) {
  return n - begin < kGroup ? static_cast<int>(n - begin) : kGroup;
}

/// Bits: the unsigned type of the element's size.
template <class Bits>
__global__ void __launch_bounds__(kThreads)
    fill_kernel(Bits* dst, std::int64_t n, Bits value, uint4 pattern, bool aligned) {
  constexpr int kGroup = 16 / sizeof(Bits);
  const std::int64_t begin = thread_index() * kGroup;
  if (begin >= n) return;
  const int count = group_size<kGroup>(begin, n);
  if (aligned && count == kGroup) {
    *reinterpret_cast<uint4*>(dst + begin) = pattern;
  } else {
    for (int i = 0; i < count; ++i) dst[begin + i] = value;
  }
}

template <class Bits>
void fill_bits(void* dst, std::int64_t n, Bits value, const Stream& stream) {
  struct Repeated {
    Bits bits[16 / sizeof(Bits)];
  } repeated;
  for (Bits& bits : repeated.bits) bits = value;
  const auto pattern = std::bit_cast<uint4>(repeated);
  launch("fill", fill_kernel<Bits>, groups_of(n, 16 / static_cast<int>(sizeof(Bits))), stream, static_cast<Bits*>(dst),
         n, value, pattern, vec_aligned(dst));
}

/// A group as wide as 16 bytes of the narrower type, Narrow; To and From are float or bf16.
__device__ inline Vec<bf16> load_group(const float* row, int count, bool aligned, bf16) {
  return load_floats<bf16>(row, 0, count, aligned);
}
template <class T>
__device__ Vec<T> load_group(const T* row, int count, bool aligned, T) {
  return load_row(row, 0, count, aligned);
}
__device__ inline void store_group(float* row, int count, bool aligned, const Vec<bf16>& v) {
  store_floats<bf16>(row, 0, count, aligned, v);
}
template <class T>
__device__ void store_group(T* row, int count, bool aligned, const Vec<T>& v) {
  store_row(row, 0, count, aligned, v);
}

template <class To, class From, class Narrow>
__global__ void __launch_bounds__(kThreads) cast_kernel(To* dst, const From* src, std::int64_t n, bool aligned) {
  constexpr int kGroup = kVec<Narrow>;
  const std::int64_t begin = thread_index() * kGroup;
  if (begin >= n) return;
  const int count = group_size<kGroup>(begin, n);
  if (aligned && count == kGroup)
    store_group(dst + begin, count, true, load_group(src + begin, count, true, Narrow{}));
  else
    store_group(dst + begin, count, false, load_group(src + begin, count, false, Narrow{}));
}

/// For casts from or to double: an element for each thread.
__device__ inline void convert(double& dst, double x) {
  dst = x;
}
__device__ inline void convert(float& dst, double x) {
  dst = static_cast<float>(x);
}
__device__ inline void convert(bf16& dst, double x) {
  dst = to_bf16(x);
}
__device__ inline double to_double(double x) {
  return x;
}
template <class T>
__device__ double to_double(T x) {
  return static_cast<double>(to_float(x));
}

template <class To, class From>
__global__ void __launch_bounds__(kThreads) cast_double_kernel(To* dst, const From* src, std::int64_t n) {
  const std::int64_t i = thread_index();
  if (i < n) convert(dst[i], to_double(src[i]));
}

/// Calls body(T{}) with the tensor's type, which is real.
template <class Body>
void with_real(const Tensor& t, Body&& body) {
  if (t.dtype == DType::f64)
    body(double{});
  else
    with_type(t, body);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    random_normal_kernel(T* dst, std::int64_t n, double std, std::uint64_t seed, std::uint64_t sequence) {
  const std::int64_t block = thread_index(), begin = block * 4;
  if (begin >= n) return;
  double normal[4];
  random_normals(normal, seed, sequence, static_cast<std::uint64_t>(block));
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (begin + i < n) dst[begin + i] = from_float<T>(static_cast<float>(std * normal[i]));
}

template <class T>
__device__ void add_group(T* dst, const T* src, int count, bool whole) {
  Vec<T> to = load_row(dst, 0, count, whole);
  const Vec<T> from = load_row(src, 0, count, whole);
#pragma unroll
  for (int i = 0; i < kVec<T>; ++i) to.value[i] += from.value[i];
  store_row(dst, 0, count, whole, to);
}

template <class T>
__global__ void __launch_bounds__(kThreads) add_kernel(T* dst, const T* src, std::int64_t n, bool aligned) {
  const std::int64_t begin = thread_index() * kVec<T>;
  if (begin >= n) return;
  const int count = group_size<kVec<T>>(begin, n);
  if (aligned && count == kVec<T>)
    add_group(dst + begin, src + begin, count, true);
  else
    add_group(dst + begin, src + begin, count, false);
}

}  // namespace

void fill(Tensor dst, double value, const Stream& stream) {
  const std::int64_t n = dst.numel();
  switch (dst.dtype) {
    case DType::f64:
      return fill_bits(dst.data, n, std::bit_cast<std::uint64_t>(value), stream);
    case DType::f32:
      return fill_bits(dst.data, n, std::bit_cast<std::uint32_t>(static_cast<float>(value)), stream);
    case DType::bf16:
      return fill_bits(dst.data, n, to_bf16(value).bits, stream);
    case DType::i32:
      return fill_bits(dst.data, n, static_cast<std::uint32_t>(static_cast<std::int32_t>(value)), stream);
  }
}

void cast(Tensor dst, Tensor src, const Stream& stream) {
  const std::int64_t n = dst.numel();
  const bool aligned = vec_aligned(dst.data) && vec_aligned(src.data);
  with_real(dst, [&]<class To>(To) {
    with_real(src, [&]<class From>(From) {
      if constexpr (std::is_same_v<To, double> || std::is_same_v<From, double>) {
        launch("cast", cast_double_kernel<To, From>, groups_of(n, 1), stream, dst.as<To>(), src.as<From>(), n);
      } else {
        using Narrow = std::conditional_t<sizeof(To) < sizeof(From), To, From>;
        launch("cast", cast_kernel<To, From, Narrow>, groups_of(n, kVec<Narrow>), stream, dst.as<To>(), src.as<From>(),
               n, aligned);
      }
    });
  });
}

void random_normal(Tensor dst, double std, std::uint64_t seed, std::uint64_t sequence, const Stream& stream) {
  with_type(dst, [&]<class T>(T) {
    launch("random_normal", random_normal_kernel<T>, groups_of(dst.numel(), 4), stream, dst.as<T>(), dst.numel(), std,
           seed, sequence);
  });
}

void add(Tensor dst, Tensor src, const Stream& stream) {
  require_one_type("add", dst, src);
  with_type(dst, [&]<class T>(T) {
    launch("add", add_kernel<T>, groups_of(dst.numel(), kVec<T>), stream, dst.as<T>(), src.as<T>(), dst.numel(),
           vec_aligned(dst.data) && vec_aligned(src.data));
  });
}

}  // namespace routescope::kernels::cuda
