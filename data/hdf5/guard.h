// What a file may ask for. HDF5 follows whatever a file says: to other files, to plug-ins, to more memory than there
// is. Everything that is opened is checked here first; every check throws Error.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "data/hdf5/type.h"

namespace routescope::data::hdf5 {

/// The last link of `path`, which exists, is a hard one: soft, external and user-defined links are refused, since
/// following them may open other files.
void require_hard_link(hid_t location, const std::string& path, const std::string& at);

/// The dataset keeps its values in this file (not external, not virtual), through filters that HDF5 has built in
/// (shuffle, deflate, fletcher32), in chunks that the file can hold.
void require_own_storage(hid_t dataset, const FileState& file, const std::string& at);

/// The type is a number as processors know it (two's complement integers of 1, 2, 4 or 8 bytes, IEEE 754, either byte
/// order) or text.
void require_plain_type(const Handle& type, const std::string& at);

/// A file can hold as many bytes, deflated: what is claimed is compared before memory is allocated.
void require_room(std::int64_t bytes, const FileState& file, const std::string& at);

/// The texts of a file are not damaged in a way that would crash HDF5: strings of variable length lie in "global
/// heaps", the one part of a file whose structure has no checksum, and HDF5 1.10 crashes on a damaged length.
void check_texts(const std::filesystem::path& file);

/// a * b. Throws Error where that is beyond 2^62.
std::int64_t multiplied(std::int64_t a, std::int64_t b, const std::string& at);

}  // namespace routescope::data::hdf5
