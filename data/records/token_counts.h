// How often each token occurs in a file of tokens.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>

namespace routescope::data {

/// Of a token shard, or of an HDF5 file with integers `probe_tokens` or `tokens`: of a run, its routing.h5. Throws
/// Error; also for a file without tokens, and for an id below 0.
std::map<std::int32_t, std::int64_t> token_counts(const std::filesystem::path& file);

}  // namespace routescope::data
