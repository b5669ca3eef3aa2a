// Softmax cross-entropy with its gradient, and sums of losses.
//   nll = log sum exp z - z_target,   dz = grad_scale (softmax(z) - onehot(target))
// logits [tokens, vocab], up to 300 KB a row. The least to move is the row in and its gradient out, 2 vocab b bytes a
// token; aim: 90 % of the copy bandwidth (in place, no more than that is ever touched). A block takes a row. Its first
// pass finds maximum and sum together (the sum is rescaled when the maximum grows) and keeps the first pieces of the
// row in shared memory; the second pass makes the gradient from these and reads the rest again. With one such block on
// a multiprocessor, the part that all of them read again (21 MB at 151936 in bf16) is still in the second-level cache.
// Shared memory and threads come in four sizes, so that a byte vocabulary does not take a whole multiprocessor.
#include "kernels/backends.h"
#include "kernels/cuda/logits.h"
#include "kernels/cuda/parts/long_sum.h"

namespace routescope::kernels::cuda {

namespace {

constexpr int kUnroll = 4;

template <int kCached>
struct Shared {
  uint4 cached[kCached];
  BlockShared<float> reduce;
};

template <class T, int kThreads, int kCached>
__global__ void __launch_bounds__(kThreads)
    cross_entropy_kernel(float* __restrict__ nll, T* dlogits, const T* logits, const std::int32_t* __restrict__ targets,
                         int vocab, float grad_scale, bool whole) {
  static_assert(kCached % (kUnroll * kThreads) == 0, "a round of pieces is kept or not, as one");
  auto& shared = shared_memory<Shared<kCached>>();
  const auto token = static_cast<std::int64_t>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  const LogitsRow<T> row(logits + token * vocab, vocab, whole);
  const int pieces = row.pieces(), target = targets[token];
  T* gradient = dlogits ? dlogits + token * vocab : nullptr;

  if (target < 0) {
    if (thread == 0) nll[token] = 0;
    if (gradient)
      for (int v = thread; v < pieces; v += kThreads) row.store(gradient, v, Vec<T>{});
    return;
  }

  // Before the barriers, because the gradient may overwrite the logits.
  const float at_target = load(row.data + target);
  OnlineSoftmax softmax;
  for (int first = thread; first < pieces; first += kUnroll * kThreads) {
    uint4 z[kUnroll];
    row.load(z, first, kThreads);
    softmax.take<T>(z);
    if (gradient && first < kCached) {
#pragma unroll
      for (int k = 0; k < kUnroll; ++k) shared.cached[first + k * kThreads] = z[k];
    }
  }
  softmax.combine(shared.reduce);
  if (thread == 0)
    nll[token] = static_cast<float>(log(static_cast<double>(softmax.sum)) + static_cast<double>(softmax.largest) -
                                    static_cast<double>(at_target));
  if (!gradient) return;

  const float factor = grad_scale / softmax.sum;
  for (int first = thread; first < pieces; first += kUnroll * kThreads) {
    uint4 z[kUnroll];
    if (first < kCached) {
#pragma unroll
      for (int k = 0; k < kUnroll; ++k) z[k] = shared.cached[first + k * kThreads];
    } else {
      row.load(z, first, kThreads);
    }
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) {
      const int v = first + k * kThreads;
      if (v >= pieces) break;
      Vec<T> dz = unpack(z[k], T{});
#pragma unroll
      for (int i = 0; i < kVec<T>; ++i) dz.value[i] = __expf(dz.value[i] - softmax.largest) * factor;
      if (target >= row.begin(v) && target < row.begin(v) + kVec<T>) {
#pragma unroll
        for (int i = 0; i < kVec<T>; ++i)
          if (target == row.begin(v) + i) dz.value[i] -= grad_scale;
      }
      row.store(gradient, v, dz);
    }
  }
}

constexpr int kSumThreads = 1024;

/// One block: 32768 losses are 128 KB, a few microseconds.
__global__ void __launch_bounds__(kSumThreads)
    accumulate_loss_kernel(double* total, const float* __restrict__ nll, std::int64_t n, bool aligned) {
  auto& shared = shared_memory<BlockShared<double>>();
  const double sum = block_sum(long_sum<kSumThreads>(nll, 0, n, aligned, [](double value) { return value; }), shared);
  if (threadIdx.x == 0) total[0] += sum;
}

}  // namespace

void cross_entropy(Tensor nll, Tensor dlogits, Tensor logits, Tensor targets, double grad_scale, const Stream& stream) {
  require_one_type("cross_entropy", logits, dlogits);
  const std::int64_t tokens = logits.shape[0], vocab = logits.shape[1];
  if (vocab == 0) return;
  with_type(logits, [&]<class T>(T) {
    T* gradient = dlogits.as<T>();
    const bool whole =
        !gradient ||
        (reinterpret_cast<std::uintptr_t>(gradient) - reinterpret_cast<std::uintptr_t>(logits.data)) % 16 == 0;
    const auto start = [&]<int kThreads, int kCached>() {
      launch("cross_entropy", cross_entropy_kernel<T, kThreads, kCached>,
             {dim3(static_cast<unsigned>(tokens)), kThreads, sizeof(Shared<kCached>)}, stream, nll.as<float>(),
             gradient, logits.as<T>(), targets.as<std::int32_t>(), static_cast<int>(vocab),
             static_cast<float>(grad_scale), whole);
    };
    // 2, 16, 64 or 144 KB of a row (96 where a block may not have more: the same sums, another part read again); a byte
    // vocabulary is work for a warp.
    const std::int64_t pieces = ceil_div<std::int64_t>(vocab, kVec<T>) + 1;
    if (pieces <= 128)
      start.template operator()<kWarp, 128>();
    else if (pieces <= 1024)
      start.template operator()<128, 1024>();
    else if (pieces <= 4096)
      start.template operator()<512, 4096>();
    else if (sizeof(Shared<9216>) <= shared_memory_limit())
      start.template operator()<768, 9216>();
    else
      start.template operator()<768, 6144>();
  });
}

void accumulate_loss(Tensor total, Tensor nll, const Stream& stream) {
  if (nll.numel() == 0) return;
  launch("accumulate_loss", accumulate_loss_kernel, {dim3(1), kSumThreads, sizeof(BlockShared<double>)}, stream,
         total.as<double>(), nll.as<float>(), nll.numel(), vec_aligned(nll.data));
}

}  // namespace routescope::kernels::cuda
