// Weights that are kept rounded to bf16: half the bytes of a checkpoint that is only probed.
#pragma once

#include <filesystem>
#include <string>

#include "data/base/manifest.h"

namespace routescope::model {

/// Writes to `to` the tensors of `from` in bf16, rounded to the nearest. The metadata of `to` have the checksum of
/// `from`: what was measured on those weights is known to be of the same step. Throws Error unless `from` has the size
/// and checksum of `expected` (of a damaged file nothing is kept that looks intact), for a number that rounds to
/// infinity, and if `to` cannot be written. What was written then stays.
data::ManifestEntry write_rounded_weights(const std::filesystem::path& from, const data::ManifestEntry& expected,
                                          const std::filesystem::path& to);

/// The checksum of the file that the weights of a safetensors file were rounded from; "" if they were not. Throws
/// Error.
std::string rounded_from(const std::filesystem::path& file);

}  // namespace routescope::model
