// Forward passes over windows of a held-out stream, in batches of the training pass's geometry.
#pragma once

#include <cstdint>
#include <functional>

#include "data/batches.h"
#include "model/model.h"

namespace routescope {

/// Runs the windows [0, windows) of `batches` through the pass. After each forward pass, `visit` gets the batch, the
/// first window in it and how many of its sequences count: a last, partial batch is filled up with repeats of its last
/// window.
void for_each_window(Pass& pass, const Batches& batches, std::int64_t windows,
                     const std::function<void(const Batch&, std::int64_t first, std::int64_t count)>& visit);

/// Mean nll of the windows [0, windows), nats a token.
double mean_nll(Pass& pass, const Batches& batches, std::int64_t windows);

}  // namespace routescope
