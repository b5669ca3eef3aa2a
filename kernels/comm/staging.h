// How sums over CPU ranks are cut so that they need little memory.
#pragma once

#include <algorithm>
#include <cstddef>

#include "kernels/comm/launch.h"

namespace routescope::kernels {

/// Two chunks of the other ranks' parts lie in host memory: one comes in while the other is summed.
inline constexpr std::size_t staging_slots = 2;

/// Elements in a chunk of a part of `count` elements of `size` bytes.
inline std::size_t staging_chunk(int ranks, std::size_t count, std::size_t size, const CommunicatorOptions& options) {
  const std::size_t others = static_cast<std::size_t>(ranks - 1);
  return std::clamp<std::size_t>(options.staging_bytes / staging_slots / (others * size), 1,
                                 std::max<std::size_t>(count, 1));
}

}  // namespace routescope::kernels
