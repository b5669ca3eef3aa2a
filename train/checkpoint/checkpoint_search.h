// Finding the checkpoint that a run can resume from.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>

#include "data/base/manifest.h"
#include "kernels/comm/communicator.h"

namespace routescope::train {

/// The newest checkpoint up to step `at_most` whose files match its manifest, on every rank. Each rank reads its share
/// of the files. Rank 0 logs a line for every newer checkpoint that does not match. Returns nothing if there are no
/// checkpoints; throws Error or AgreedError if there are some and none is intact. Collective.
std::optional<data::CheckpointEntry> newest_intact_checkpoint(
    const std::filesystem::path& run_dir, kernels::Communicator& communicator,
    std::int64_t at_most = std::numeric_limits<std::int64_t>::max());

}  // namespace routescope::train
