// Positions grouped by id: the order in which an embedding's gradient is summed.
#pragma once

#include <cstdint>

#include "kernels/stream.h"

namespace routescope::kernels::cuda {

/// A key is id << 32 | position. Ascending, keys of one id stand together, in order of position.
using IdKey = std::uint64_t;

/// The keys of ids [count] (device, not negative), ascending. `keys` and `other` [count] are scratch; returns the one
/// that holds the result.
const IdKey* sorted_by_id(IdKey* keys, IdKey* other, const std::int32_t* ids, std::int64_t count, const Stream& stream);

}  // namespace routescope::kernels::cuda
