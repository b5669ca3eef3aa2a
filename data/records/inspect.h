// A summary of any file of this project, a few lines to read.
#pragma once

#include <filesystem>
#include <string>

namespace routescope::data {

/// Whether a regular file begins as HDF5 files do. Throws Error for what is no regular file.
bool is_hdf5(const std::filesystem::path& file);

/// Of a shard, an HDF5 file (routing, analysis, dump or any other) or a checkpoint directory, which is also verified.
/// Throws Error for any other file, and for a damaged one.
std::string inspect(const std::filesystem::path& path);

}  // namespace routescope::data
