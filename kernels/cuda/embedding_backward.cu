// The embedding's gradient:  dweight[ids[t]] += dout[t],  dweight [vocab, d] f32, dout [tokens, d].
// Bytes a token: b d in, and 8 d for each different id. Aim: 85 % of the copy bandwidth behind the sort. Tokens are
// sorted by id, so a row's contributions are added in token order without atomics. Every warp has the same work,
// however often an id occurs: kPiece neighbours in the sorted order, and 32 pieces of 16 bytes of their columns. It
// adds the sum of each id in its piece to dweight, except for an id that began in the piece before: this sum goes to
// the workspace, and a second kernel adds the sums of such an id, piece by piece, to its row.
#include "kernels/backends.h"
#include "kernels/cuda/parts/partials.h"
#include "kernels/cuda/parts/sort.h"
#include "kernels/cuda/parts/vec.h"

namespace routescope::kernels::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kPiece = kEmbeddingPiece;
static_assert(kPiece == kWarp, "each lane holds the key of one token");

__device__ inline int id_of(IdKey key) {
  return static_cast<int>(key >> 32);
}

/// A warp's share: a piece of the sorted tokens, and a column of 16 bytes a lane.
struct Share {
  std::int64_t piece;
  int column;
};
template <class T>
__device__ Share share_of(int groups) {
  const std::int64_t warp = static_cast<std::int64_t>(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  return {warp / groups, (static_cast<int>(warp % groups) * kWarp + lane) * kVec<T>};
}

template <class T>
__device__ void add_to(Vec<T>& sum, const Vec<T>& v) {
#pragma unroll
  for (int i = 0; i < kVec<T>; ++i) sum.value[i] += v.value[i];
}
template <bool kWhole, class T>
__device__ void add_to_row(float* row, int column, int d, Vec<T> sum) {
  add_to(sum, load_floats<T>(row, column, d, kWhole));
  store_floats<T>(row, column, d, kWhole, sum);
}

/// waiting [pieces, d]: the sum in a piece for the id with which the piece before ends.
template <class T, bool kWhole>
__global__ void __launch_bounds__(kThreads)
    sum_pieces_kernel(float* __restrict__ dweight, float* __restrict__ waiting, const T* __restrict__ dout,
                      const IdKey* __restrict__ keys, std::int64_t tokens, int d, int groups) {
  const Share share = share_of<T>(groups);
  const std::int64_t begin = share.piece * kPiece, left = tokens - begin;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, column = share.column;
  // None for warps beyond the last piece. They still run, because exchanges need whole warps.
  const int count = left < kPiece ? static_cast<int>(left < 0 ? 0 : left) : kPiece;
  const IdKey own = lane < count ? keys[begin + lane] : 0;
  const int own_id = id_of(own), next_id = __shfl_down_sync(kFullMask, own_id, 1);
  const auto own_position = static_cast<unsigned>(own & 0xffffffffu);
  // Bit i: token i is the last of its id in this piece.
  const unsigned last = __ballot_sync(kFullMask, lane < count && (lane == count - 1 || own_id != next_id));
  const int first_id = __shfl_sync(kFullMask, own_id, 0);
  bool waits = begin > 0 && count > 0 && id_of(keys[begin - 1]) == first_id;
  Vec<T> sum{};
  constexpr int kUnroll = 4;
  for (int first = 0; first < kPiece; first += kUnroll) {
    uint4 v[kUnroll];
    int ids[kUnroll];
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) {
      const unsigned position = __shfl_sync(kFullMask, own_position, first + k);
      ids[k] = __shfl_sync(kFullMask, own_id, first + k);
      v[k] = load_raw<kWhole>(dout + static_cast<std::int64_t>(position) * d, column, d, first + k < count);
    }
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) {
      add_to(sum, unpack(v[k], T{}));
      if ((last >> (first + k) & 1u) == 0) continue;
      if (column < d) {
        if (waits)
          store_floats<T>(waiting + share.piece * d, column, d, kWhole, sum);
        else
          add_to_row<kWhole>(dweight + static_cast<std::int64_t>(ids[k]) * d, column, d, sum);
      }
      sum = Vec<T>{};
      waits = false;
    }
  }
}

/// The warp of the first piece with a waiting sum of an id adds all waiting sums of this id.
template <class T, bool kWhole>
__global__ void __launch_bounds__(kThreads)
    add_waiting_kernel(float* __restrict__ dweight, const float* __restrict__ waiting, const IdKey* __restrict__ keys,
                       std::int64_t tokens, int d, int groups) {
  const Share share = share_of<T>(groups);
  const std::int64_t begin = share.piece * kPiece;
  if (begin >= tokens || begin == 0) return;  // whole warps
  const int id = id_of(keys[begin]);
  const bool waits = id_of(keys[begin - 1]) == id;
  const bool waited_before =
      begin > kPiece && id_of(keys[begin - kPiece]) == id && id_of(keys[begin - kPiece - 1]) == id;
  if (!waits || waited_before) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  Vec<T> sum{};
  for (std::int64_t piece = share.piece;; piece += kWarp) {
    // The lanes look at the first tokens of 32 pieces; `here` of these go on with this id.
    const std::int64_t at = (piece + lane) * kPiece;
    const unsigned others = __ballot_sync(kFullMask, at >= tokens || id_of(keys[at]) != id);
    const int here = others ? __ffs(static_cast<int>(others)) - 1 : kWarp;
    constexpr int kUnroll = 4;
    for (int first = 0; first < here && share.column < d; first += kUnroll) {
      Vec<T> v[kUnroll];
#pragma unroll
      for (int k = 0; k < kUnroll; ++k) {
        v[k] = Vec<T>{};
        if (first + k < here) v[k] = load_floats<T>(waiting + (piece + first + k) * d, share.column, d, kWhole);
      }
#pragma unroll
      for (int k = 0; k < kUnroll; ++k) add_to(sum, v[k]);
    }
    if (here < kWarp) break;
  }
  if (share.column < d) add_to_row<kWhole>(dweight + static_cast<std::int64_t>(id) * d, share.column, d, sum);
}

}  // namespace

void embedding_backward(Tensor dweight, Tensor dout, Tensor ids, const Stream& stream) {
  const std::int64_t tokens = dout.shape[0], d = dout.shape[1];
  if (tokens == 0 || d == 0) return;
  const auto count = static_cast<std::size_t>(tokens);
  const std::int64_t pieces = ceil_div<std::int64_t>(tokens, kPiece);
  Scratch scratch(stream);
  auto* keys = scratch.take<IdKey>(count);
  auto* other = scratch.take<IdKey>(count);
  auto* waiting = scratch.take<float>(static_cast<std::size_t>(pieces * d));
  const IdKey* sorted = sorted_by_id(keys, other, ids.as<std::int32_t>(), tokens, stream);
  with_type(dout, [&]<class T>(T) {
    const bool aligned = rows_aligned(dout.as<T>(), d) && vec_aligned(dweight.data) && vec_aligned(waiting);
    const auto groups = static_cast<int>(ceil_div<std::int64_t>(d, kWarp * kVec<T>));
    const Grid grid{dim3(static_cast<unsigned>(ceil_div<std::int64_t>(pieces * groups, kThreads / kWarp))), kThreads};
    with_flag(aligned, [&](auto whole) {
      launch("embedding_sum_pieces", sum_pieces_kernel<T, whole.value>, grid, stream, dweight.as<float>(), waiting,
             dout.as<T>(), sorted, tokens, static_cast<int>(d), groups);
      launch("embedding_add_waiting", add_waiting_kernel<T, whole.value>, grid, stream, dweight.as<float>(), waiting,
             sorted, tokens, static_cast<int>(d), groups);
    });
  });
}

}  // namespace routescope::kernels::cuda
