// What a file of this project holds, in a few lines for a person.
#pragma once

#include <filesystem>
#include <string>

namespace routescope::data {

/// A shard, an HDF5 file (routing, analysis, dump or any other) or a checkpoint directory, which is also verified.
/// Throws Error for anything else, and for what is damaged.
std::string inspect(const std::filesystem::path& path);

}  // namespace routescope::data
