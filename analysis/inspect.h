// A run in a screenful: what there is of it, how it learns, where its routing stands.
#pragma once

#include <filesystem>
#include <string>

#include "model/config.h"

namespace routescope {

/// "block_attn_res (block_sum, 4 blocks), 8 layers, hidden_size 128, ...": one line.
std::string describe_model(const ModelConfig& config);

/// Throws Error if there is no run.
std::string inspect_run(const std::filesystem::path& run_dir);

}  // namespace routescope
