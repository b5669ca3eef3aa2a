// The held-out sequences that routing snapshots are measured on: windows of different documents of the validation
// stream (data/tokens/documents.h), chosen once for the whole run.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/comm/communicator.h"
#include "train/config/config.h"
#include "train/run/start.h"

namespace routescope::train {

struct ProbeSequences {
  std::vector<std::int32_t> tokens;     // [sequences, positions]
  std::vector<std::int64_t> documents;  // [sequences] as RoutingRecordInfo has them
};

/// Those of the run's record where training goes on from a checkpoint, else newly chosen ones. The same on every rank:
/// rank 0 reads and chooses. Throws Error or AgreedError. Collective.
ProbeSequences find_probe_sequences(const TrainConfig& config, const Streams& streams, const StartPoint& start,
                                    kernels::Communicator& communicator);

}  // namespace routescope::train
