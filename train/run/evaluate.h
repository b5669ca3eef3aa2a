// Forward passes over held-out windows, in batches of the training pass's geometry.
#pragma once

#include <cstdint>
#include <functional>

#include "data/tokens/batches.h"
#include "kernels/comm/communicator.h"
#include "model/pass/pass.h"

namespace routescope::train {

/// Windows [begin, end) of a stream.
struct Windows {
  std::int64_t begin = 0, end = 0;
};
/// This rank's share of the windows [0, windows). Shares are contiguous, in the order of ranks, and their sizes differ
/// by at most one.
Windows windows_of_rank(std::int64_t windows, const kernels::Place& place);

/// Runs `windows` through the pass. `get(begin, end)` returns windows [begin, end); they may lack targets. After each
/// forward pass calls `visit` with the batch, its first window and the number of its sequences that count: a partial
/// last batch is filled up with copies of its last window.
void for_each_window(model::Pass& pass, Windows windows,
                     const std::function<data::Batch(std::int64_t begin, std::int64_t end)>& get,
                     const std::function<void(const data::Batch&, std::int64_t first, std::int64_t count)>& visit);

/// Mean nll of the windows [0, windows), nats a token, computed by all ranks and returned on every rank. The nll is
/// summed for each window, then over windows in order. So the number of ranks does not change a bit of the result.
double mean_nll(model::Pass& pass, const data::Batches& batches, std::int64_t windows,
                kernels::Communicator& communicator);

}  // namespace routescope::train
