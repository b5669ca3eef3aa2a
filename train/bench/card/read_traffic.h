// The memory traffic of the reads of Attention Residuals.
#pragma once

#include "train/bench/card/traffic.h"

namespace routescope::train {

/// Measures the operations of the reads over n = 1, 4 and 8 completed sources, in groups of eight reads.
void measure_reads(TrafficBench& bench);

}  // namespace routescope::train
