// Which files the shards are that a user names.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace routescope::data {

/// The files that paths and patterns like train-*.bin name, in the order given; those of a pattern sorted. A part of a
/// path that is there is that file or directory, whatever characters it has; only else it is a pattern. Throws Error if
/// one names nothing, or two name the same file, also through links.
std::vector<std::filesystem::path> shard_files(const std::vector<std::string>& patterns);

/// Throws Error if a file belongs to both: validation on what was trained on. `train` and `valid` are keys or options.
void require_apart_shards(const std::vector<std::string>& train_patterns, const std::string& train,
                          const std::vector<std::string>& valid_patterns, const std::string& valid);

}  // namespace routescope::data
