// Task files: prompts with answers, a JSON object a line (data/formats/tasks.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "analysis/results/probe_tokens.h"

namespace routescope::analysis {

/// The prompts of a task file as sequences: each prompt, its answer, then padding that nothing depends on.
struct Task {
  ProbeTokens run;     // what the model runs on
  ProbeTokens donors;  // the other prompts, aligned with these; no sequences where the file has no corrupted prompts
  std::string sha256;  // of the file
};

/// For a model with this vocabulary. Text is bytes, and only for the vocabulary of bytes. Throws Error naming the file,
/// the line, what was found and what was expected; also for denoising without corrupted prompts.
Task load_task(const std::filesystem::path& file, std::int64_t vocab_size, Direction direction = Direction::noising);
/// The same from the text of a file; `where` names it.
Task parse_task(std::string_view text, const std::string& where, std::int64_t vocab_size,
                Direction direction = Direction::noising);

}  // namespace routescope::analysis
