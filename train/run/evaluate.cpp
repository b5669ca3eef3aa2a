#include "train/run/evaluate.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace routescope::train {

Windows windows_of_rank(std::int64_t windows, const kernels::Place& place) {
  return {windows * place.rank / place.size, windows * (place.rank + 1) / place.size};
}

void for_each_window(model::Pass& pass, Windows windows,
                     const std::function<data::Batch(std::int64_t, std::int64_t)>& get,
                     const std::function<void(const data::Batch&, std::int64_t, std::int64_t)>& visit) {
  const auto seq_len = static_cast<std::size_t>(pass.seq_len());
  for (std::int64_t first = windows.begin; first < windows.end; first += pass.batch()) {
    const std::int64_t count = std::min(pass.batch(), windows.end - first);
    data::Batch batch = get(first, first + count);
    for (std::int64_t i = count; i < pass.batch(); ++i) {
      const auto last = (static_cast<std::size_t>(count) - 1) * seq_len;
      for (std::vector<std::int32_t>* ids : {&batch.inputs, &batch.targets}) {
        if (ids->empty()) continue;
        ids->resize(ids->size() + seq_len);
        std::copy_n(ids->begin() + static_cast<std::ptrdiff_t>(last), seq_len,
                    ids->end() - static_cast<std::ptrdiff_t>(seq_len));
      }
    }
    pass.forward(batch.inputs);
    visit(batch, first, count);
  }
}

double mean_nll(model::Pass& pass, const data::Batches& batches, std::int64_t windows,
                kernels::Communicator& communicator) {
  std::vector<float> nll(static_cast<std::size_t>(pass.tokens()));
  std::vector<double> sums(static_cast<std::size_t>(windows), 0.0);  // by window; 0 for other ranks' windows
  const auto visit = [&](const data::Batch& batch, std::int64_t first, std::int64_t count) {
    pass.nll(batch.targets, nll);
    for (std::int64_t i = 0; i < count * pass.seq_len(); ++i)
      sums[static_cast<std::size_t>(first + i / pass.seq_len())] +=
          static_cast<double>(nll[static_cast<std::size_t>(i)]);
  };
  const auto get = [&](std::int64_t begin, std::int64_t end) { return batches.in_order(begin, end); };
  for_each_window(pass, windows_of_rank(windows, communicator.place()), get, visit);
  communicator.all_reduce(sums, kernels::Reduction::sum, "validation loss");
  return std::accumulate(sums.begin(), sums.end(), 0.0) / static_cast<double>(windows * pass.seq_len());
}

}  // namespace routescope::train
