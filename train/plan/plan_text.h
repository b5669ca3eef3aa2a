// The text that `routescope-train --plan` prints: memory, bytes between ranks, arithmetic and time of a run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "train/config/config.h"

namespace routescope::train {

struct PlanOptions {
  std::int64_t world_size = 1;                   // ranks
  std::optional<std::filesystem::path> cluster;  // a description (cluster.h); without one this machine is measured
  double seconds = 8;                            // about how long the measurement takes
};

/// Resolves `config` itself; with a cluster, for the cluster's device. Throws UsageError for more ranks than a step has
/// micro-batches.
std::string plan_text(TrainConfig config, const PlanOptions& options = {});

}  // namespace routescope::train
