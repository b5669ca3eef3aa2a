// The distance of a prediction from the one without an intervention. For rows p, q of logits [tokens, vocab],
//   kl = sum softmax(p) (ln softmax(p) - ln softmax(q)),   agree = whether their largest logits stand at the same
//   (first) token.
// With r = ln softmax(p) - ln softmax(q) and both distributions summing to one, kl = sum softmax(p) (r + exp(-r) - 1):
// no term is negative, so nothing cancels when the predictions are almost the same, which is the usual case. r needs
// both log-sum-exps first, so a block reads its two rows twice: 4 vocab b bytes a token. The second reading comes from
// the second-level cache only for small vocabularies. Aim: 85 % of the copy bandwidth.
#include "kernels/backends.h"
#include "kernels/cuda/logits.h"

namespace routescope::kernels::cuda {

namespace {

constexpr int kUnroll = 2;

struct Shared {
  BlockShared<float> reduce;
  BlockShared<int> first;
  BlockShared<double> sum;
};

/// The result of the first reading of a row: its softmax, and the first column of its largest logit.
struct Summary {
  OnlineSoftmax softmax;
  int first = 0;

  /// Pieces `piece`, `piece` + `step`, ...
  template <class T>
  __device__ void take(const LogitsRow<T>& row, const uint4 (&pieces)[kUnroll], int piece, int step) {
    const float former = softmax.largest;
    softmax.take<T>(pieces);
    if (softmax.largest == former) return;
      // Backwards, so that the first of equals stays.
#pragma unroll
    for (int k = kUnroll - 1; k >= 0; --k) {
      const Vec<T> z = unpack(pieces[k], T{});
#pragma unroll
      for (int i = kVec<T> - 1; i >= 0; --i)
        if (z.value[i] == softmax.largest) first = row.begin(piece + k * step) + i;
    }
  }
  __device__ void combine(Shared& shared) {
    const float own = softmax.largest;
    softmax.combine(shared.reduce);
    constexpr int kNone = 0x7fffffff;
    first = block_reduce(own == softmax.largest ? first : kNone, kNone, shared.first, [](int value) {
#pragma unroll
      for (int offset = kWarp / 2; offset > 0; offset /= 2) {
        const int other = __shfl_xor_sync(kFullMask, value, offset);
        value = other < value ? other : value;
      }
      return value;
    });
  }
};

/// exp(logit_p - largest_p) * (r + exp(-r) - 1). The bracket is r^2/2 for small r: there by its series (the next term
/// is below 2e-7 of the result). Elsewhere the exponentials are joined, so that none overflows.
__device__ inline float kl_term(float above, float r) {
  const float series = r * r * (0.5f + r * (-1.0f / 6 + r * (1.0f / 24 + r * (-1.0f / 120 + r * (1.0f / 720)))));
  const float p = __expf(above);
  return fabsf(r) < 0.125f ? p * series : p * (r - 1.0f) + __expf(above - r);
}

template <class T, int kThreads>
__global__ void __launch_bounds__(kThreads)
    compare_logits_kernel(float* __restrict__ kl, float* __restrict__ agree, const T* __restrict__ intact,
                          const T* __restrict__ ablated, int vocab, bool whole) {
  auto& shared = shared_memory<Shared>();
  const auto token = static_cast<std::int64_t>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  const LogitsRow<T> p(intact + token * vocab, vocab, whole), q(ablated + token * vocab, vocab, whole);
  const int pieces = p.pieces();
  const auto walk = [&](auto&& body) {
    for (int first = thread; first < pieces; first += kUnroll * kThreads) {
      uint4 of_p[kUnroll], of_q[kUnroll];
      p.load(of_p, first, kThreads);
      q.load(of_q, first, kThreads);
      body(of_p, of_q, first);
    }
  };

  Summary of_intact, of_ablated;
  walk([&](const uint4(&of_p)[kUnroll], const uint4(&of_q)[kUnroll], int first) {
    of_intact.take(p, of_p, first, kThreads);
    of_ablated.take(q, of_q, first, kThreads);
  });
  of_intact.combine(shared);
  of_ablated.combine(shared);

  const float largest_p = of_intact.softmax.largest;
  const double sum_p = static_cast<double>(of_intact.softmax.sum), sum_q = static_cast<double>(of_ablated.softmax.sum);
  const auto shift = static_cast<float>(static_cast<double>(largest_p) -
                                        static_cast<double>(of_ablated.softmax.largest) + log(sum_p / sum_q));
  double sum = 0;
  walk([&](const uint4(&of_p)[kUnroll], const uint4(&of_q)[kUnroll], int first) {
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) {
      const Vec<T> z_p = unpack(of_p[k], T{}), z_q = unpack(of_q[k], T{});
      const int begin = p.begin(first + k * kThreads);
      float run = 0;
#pragma unroll
      for (int i = 0; i < kVec<T>; ++i) {
        const float term = kl_term(z_p.value[i] - largest_p, (z_p.value[i] - z_q.value[i]) - shift);
        run += begin + i >= 0 && begin + i < vocab ? term : 0.0f;
      }
      sum += static_cast<double>(run);
    }
  });
  sum = block_sum(sum, shared.sum);
  if (thread == 0) {
    kl[token] = static_cast<float>(sum / sum_p);
    agree[token] = of_intact.first == of_ablated.first ? 1.0f : 0.0f;
  }
}

}  // namespace

void compare_logits(Tensor kl, Tensor agree, Tensor intact, Tensor ablated, const Stream& stream) {
  require_one_type("compare_logits", intact, ablated);
  const std::int64_t tokens = intact.shape[0], vocab = intact.shape[1];
  if (vocab == 0) return;
  with_type(intact, [&]<class T>(T) {
    const bool whole =
        (reinterpret_cast<std::uintptr_t>(ablated.data) - reinterpret_cast<std::uintptr_t>(intact.data)) % 16 == 0;
    const auto start = [&]<int kThreads>() {
      launch("compare_logits", compare_logits_kernel<T, kThreads>,
             {dim3(static_cast<unsigned>(tokens)), kThreads, sizeof(Shared)}, stream, kl.as<float>(), agree.as<float>(),
             intact.as<T>(), ablated.as<T>(), static_cast<int>(vocab), whole);
    };
    // A byte vocabulary is a piece or two for each lane of one warp.
    if (vocab <= 2048)
      start.template operator()<kWarp>();
    else
      start.template operator()<512>();
  });
}

}  // namespace routescope::kernels::cuda
