// Names and removal of checkpoint directories, for those who write and find them.
#pragma once

#include <atomic>
#include <filesystem>

#include "data/base/manifest.h"

namespace routescope::train {

/// Where a checkpoint is while it is written: beside its place, under a name that no reader takes for one.
std::filesystem::path writing_dir(const std::filesystem::path& checkpoint);
/// Throws Error.
void rename_directory(const std::filesystem::path& from, const std::filesystem::path& to);
/// First out of sight, so that nobody meets half of it, then for good. What cannot be removed then is debris. Throws
/// Error if it cannot be moved.
void remove_checkpoint(const std::filesystem::path& checkpoint);

/// Whether every file of a checkpoint is what its manifest says; false, soon, once `given_up` is set.
bool is_intact(const data::CheckpointEntry& checkpoint, const std::atomic<bool>& given_up);

}  // namespace routescope::train
