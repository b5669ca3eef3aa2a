// Forward passes over windows of a held-out stream, in batches of the training pass's geometry.
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
/// This rank's share of the windows [0, windows): neighbouring ones, in the order of ranks; numbers differ by at most
/// one.
Windows windows_of_rank(std::int64_t windows, const kernels::Place& place);

/// Runs `windows` of `batches` through the pass. After each forward pass, `visit` gets the batch, the first window in
/// it and how many of its sequences count: a last, partial batch is filled up with repeats of its last window.
void for_each_window(model::Pass& pass, const data::Batches& batches, Windows windows,
                     const std::function<void(const data::Batch&, std::int64_t first, std::int64_t count)>& visit);

/// Mean nll of the windows [0, windows), nats a token, computed by all ranks; on every rank. Sums are by window, then
/// over windows in their order: what a window gives depends on no other, so the number of ranks changes no bit of it.
double mean_nll(model::Pass& pass, const data::Batches& batches, std::int64_t windows,
                kernels::Communicator& communicator);

}  // namespace routescope::train
