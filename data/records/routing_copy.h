// Rows of one record into another: resuming and salvaging copy them.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <string>

#include "data/hdf5/file.h"
#include "data/records/routing_table.h"

namespace routescope::data::routing_format {

inline constexpr std::int64_t no_step = std::numeric_limits<std::int64_t>::min();

/// Numbers by table are in the order of table_fields().
struct Copied {
  std::array<std::int64_t, 4> last{no_step, no_step, no_step, no_step};  // last step copied, by table
  std::array<std::int64_t, 4> rows{}, lost{};                            // rows copied; rows damaged and left out
  std::string damage;                                                    // what the first damaged row is; empty: none
  std::int64_t intact_step = 0;  // all rows of steps up to this one are intact; -1: not even those of step 0
};

/// Copies the rows of steps up to `until`, each only if it is intact. Stops in each table at the first damaged row;
/// with `go_on` it goes on after that. Stored chunks are copied as they are. A column that `from` lacks is filled with
/// missing values, and the checksums are those of the rows with it.
Copied copy_rows(const hdf5::File& from, bool journaled, hdf5::File& to, Tables& target, std::int64_t until,
                 bool go_on);

}  // namespace routescope::data::routing_format
