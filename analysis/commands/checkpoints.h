// The saved steps of a run that a command works on.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "data/base/manifest.h"

namespace routescope::analysis {

/// Throws Error if it is not a directory.
void check_run(const std::filesystem::path& run);

/// All checkpoints of a run, by step. Throws Error if there is no such run.
std::vector<data::CheckpointEntry> saved_checkpoints(const std::filesystem::path& run);

/// The same, at least one. Throws Error if there is none.
std::vector<data::CheckpointEntry> some_checkpoints(const std::filesystem::path& run);

/// The model of step 0, a checkpoint or what a run keeps of it (data::initial_dir()); none if it is gone.
std::vector<data::CheckpointEntry> initial_checkpoint(const std::filesystem::path& run);

/// `step`: a number, "latest" or "all". Throws UsageError for any other text, Error if there is no such step.
std::vector<data::CheckpointEntry> chosen_checkpoints(const std::filesystem::path& run, const std::string& step);

}  // namespace routescope::analysis
