// Rows of one record into another: what resuming and salvaging are.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <string>

#include "data/records/routing_format.h"

namespace routescope::data::routing_format {

inline constexpr std::int64_t no_step = std::numeric_limits<std::int64_t>::min();

struct Copied {
  std::array<std::int64_t, 4> last{no_step, no_step, no_step, no_step};  // last step copied, by table (Tables::all())
  std::array<std::int64_t, 4> rows{}, lost{};                            // copied; damaged and left out
  std::string damage;                                                    // what the first damaged row is; empty: none
  std::int64_t intact_step = 0;  // all rows of steps up to this one are intact; -1: not even those of step 0
};

/// Copies the rows of steps up to `until`, each only if it is intact. Stops in each table at the first damaged row, or
/// goes on after it with `go_on`. Stored chunks are taken over as they are.
Copied copy_rows(const hdf5::File& from, bool journaled, hdf5::File& to, Tables& target, std::int64_t until,
                 bool go_on);

}  // namespace routescope::data::routing_format
