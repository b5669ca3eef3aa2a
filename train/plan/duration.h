// Durations as a person reads them.
#pragma once

#include <string>

namespace routescope::train {

/// "2d03h", "1h02m", "3m05s" or "12s".
std::string format_duration(double seconds);

}  // namespace routescope::train
