#include "train/evaluate.h"

#include <algorithm>
#include <vector>

namespace routescope {

void for_each_window(Pass& pass, const Batches& batches, std::int64_t windows,
                     const std::function<void(const Batch&, std::int64_t, std::int64_t)>& visit) {
  const auto seq_len = static_cast<std::size_t>(pass.seq_len());
  for (std::int64_t first = 0; first < windows; first += pass.batch()) {
    const std::int64_t count = std::min(pass.batch(), windows - first);
    Batch batch = batches.in_order(first, first + count);
    for (std::int64_t i = count; i < pass.batch(); ++i) {
      const auto last = (static_cast<std::size_t>(count) - 1) * seq_len;
      for (std::vector<std::int32_t>* ids : {&batch.inputs, &batch.targets}) {
        ids->resize(ids->size() + seq_len);
        std::copy_n(ids->begin() + static_cast<std::ptrdiff_t>(last), seq_len,
                    ids->end() - static_cast<std::ptrdiff_t>(seq_len));
      }
    }
    pass.forward(batch.inputs);
    visit(batch, first, count);
  }
}

double mean_nll(Pass& pass, const Batches& batches, std::int64_t windows) {
  std::vector<float> nll(static_cast<std::size_t>(pass.tokens()));
  double sum = 0;
  for_each_window(pass, batches, windows, [&](const Batch& batch, std::int64_t, std::int64_t count) {
    pass.nll(batch.targets, nll);
    for (std::int64_t i = 0; i < count * pass.seq_len(); ++i)
      sum += static_cast<double>(nll[static_cast<std::size_t>(i)]);
  });
  return sum / static_cast<double>(windows * pass.seq_len());
}

}  // namespace routescope
