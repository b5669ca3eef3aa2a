// A merge sort of keys id << 32 | position, all of them different.
// Blocks first sort runs of kRun keys in shared memory (bitonic), then pairs of runs are merged until one is left: each
// key finds its place as its rank in its own run plus, by binary search, its rank in the other. 32768 keys are 16 runs
// and four merges of 256 KB each, all of it in the second-level cache, so launches and search steps take the time (aim:
// 25 us, once a step).
#include "kernels/cuda/parts/launch.h"
#include "kernels/cuda/parts/sort.h"

namespace routescope::kernels::cuda {

namespace {

constexpr int kSortThreads = 512;
constexpr int kRun = 2 * kSortThreads;
constexpr int kMergeThreads = 256;

struct Shared {
  IdKey key[kRun];
};

__global__ void __launch_bounds__(kSortThreads)
    sort_runs_kernel(IdKey* __restrict__ keys, const std::int32_t* __restrict__ ids, std::int64_t count) {
  auto& shared = shared_memory<Shared>();
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * kRun;
  for (int i = thread; i < kRun; i += kSortThreads) {
    const std::int64_t at = begin + i;
    // Beyond the end: keys above all others.
    shared.key[i] = at < count ? static_cast<IdKey>(ids[at]) << 32 | static_cast<IdKey>(at) : ~IdKey{0};
  }
  for (int size = 2; size <= kRun; size *= 2) {
    for (int stride = size / 2; stride > 0; stride /= 2) {
      __syncthreads();
      const int low = 2 * thread - (thread & (stride - 1)), high = low + stride;
      const IdKey a = shared.key[low], b = shared.key[high];
      const bool ascending = (low & size) == 0 || size == kRun;
      if ((a > b) == ascending) {
        shared.key[low] = b;
        shared.key[high] = a;
      }
    }
  }
  __syncthreads();
  for (int i = thread; i < kRun; i += kSortThreads)
    if (begin + i < count) keys[begin + i] = shared.key[i];
}

/// Merges runs of `run` keys, two and two.
__global__ void __launch_bounds__(kMergeThreads)
    merge_runs_kernel(IdKey* __restrict__ to, const IdKey* __restrict__ from, std::int64_t count, std::int64_t run) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kMergeThreads + threadIdx.x;
  if (i >= count) return;
  const IdKey key = from[i];
  const std::int64_t own = i / run, pair = own / 2 * 2 * run;
  // How many keys of the other run are below.
  const std::int64_t other = (own ^ 1) * run;
  std::int64_t low = other < count ? other : count;
  std::int64_t high = other + run < count ? other + run : count;
  const std::int64_t first = low;
  while (low < high) {
    const std::int64_t middle = low + (high - low) / 2;
    if (from[middle] < key)
      low = middle + 1;
    else
      high = middle;
  }
  to[pair + (i - own * run) + (low - first)] = key;
}

}  // namespace

const IdKey* sorted_by_id(IdKey* keys, IdKey* other, const std::int32_t* ids, std::int64_t count,
                          const Stream& stream) {
  launch("sort_runs", sort_runs_kernel,
         {dim3(static_cast<unsigned>(ceil_div<std::int64_t>(count, kRun))), kSortThreads, sizeof(Shared)}, stream, keys,
         ids, count);
  const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(count, kMergeThreads));
  for (std::int64_t run = kRun; run < count; run *= 2) {
    launch("merge_runs", merge_runs_kernel, {dim3(blocks), kMergeThreads}, stream, other, keys, count, run);
    IdKey* merged = other;
    other = keys;
    keys = merged;
  }
  return keys;
}

}  // namespace routescope::kernels::cuda
