// A check of a file's texts before HDF5 reads them: strings of variable length lie in "global heaps", the one part of a
// file whose structure has no checksum, and HDF5 1.10 crashes on a damaged length.
#pragma once

#include <filesystem>

namespace routescope::data::hdf5 {

/// Throws Error if the texts of a file are damaged in a way that would crash HDF5.
void check_texts(const std::filesystem::path& file);

}  // namespace routescope::data::hdf5
