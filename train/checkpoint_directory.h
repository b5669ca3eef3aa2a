// Names and removal of checkpoint directories, for those who write and find them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "data/manifest.h"
#include "kernels/communicator.h"

namespace routescope {

/// Where a checkpoint is while it is written: beside its place, under a name that no reader takes for one.
std::filesystem::path writing_dir(const std::filesystem::path& checkpoint);
/// Throws Error.
void rename_directory(const std::filesystem::path& from, const std::filesystem::path& to);
/// First out of sight, so that nobody meets half of it, then for good. What cannot be removed then is debris. Throws
/// Error if it cannot be moved.
void remove_checkpoint(const std::filesystem::path& checkpoint);

/// What is wrong with a checkpoint's files, those with index % share.size == share.rank in the order of its manifest,
/// or nothing.
std::string damage(const CheckpointEntry& checkpoint, const Place& share);

}  // namespace routescope
