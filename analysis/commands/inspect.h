// A run in a screenful: what there is of it, how it learns, where its routing stands.
#pragma once

#include <filesystem>
#include <string>

namespace routescope::analysis {

/// Throws Error if there is no run.
std::string inspect_run(const std::filesystem::path& run_dir);

}  // namespace routescope::analysis
