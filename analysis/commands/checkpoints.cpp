#include "analysis/commands/checkpoints.h"

#include <fmt/format.h>

#include "data/base/error.h"
#include "data/base/number.h"

namespace routescope::analysis {

namespace fs = std::filesystem;

void check_run(const fs::path& run) {
  if (!fs::is_directory(run)) throw data::Error("{}: no such directory, expected a run", run.string());
}

std::vector<data::CheckpointEntry> saved_checkpoints(const fs::path& run) {
  check_run(run);
  return data::list_checkpoints(run);
}

std::vector<data::CheckpointEntry> some_checkpoints(const fs::path& run) {
  std::vector<data::CheckpointEntry> checkpoints = saved_checkpoints(run);
  if (checkpoints.empty())
    throw data::Error("{}: found no checkpoint, expected at least one", (run / "checkpoints").string());
  return checkpoints;
}

std::vector<data::CheckpointEntry> initial_checkpoint(const fs::path& run) {
  const std::vector<data::CheckpointEntry> checkpoints = saved_checkpoints(run);
  if (!checkpoints.empty() && checkpoints.front().step == 0) return {checkpoints.front()};
  if (const fs::path kept = data::initial_dir(run); fs::is_directory(kept)) return {{0, kept}};
  return {};
}

std::vector<data::CheckpointEntry> chosen_checkpoints(const fs::path& run, const std::string& step) {
  std::vector<data::CheckpointEntry> checkpoints = some_checkpoints(run);
  if (step == "all") return checkpoints;
  if (step == "latest") return {checkpoints.back()};
  std::int64_t number = 0;
  try {
    number = data::parse_number<std::int64_t>(step, "--step", 0);
  } catch (const data::Error&) {
    throw data::UsageError("--step: found '{}', expected a number, latest or all", step);
  }
  for (const data::CheckpointEntry& entry : checkpoints) {
    if (entry.step == number) return {entry};
  }
  std::string saved;
  for (const data::CheckpointEntry& entry : checkpoints) saved += fmt::format(" {}", entry.step);
  throw data::Error("{}: found no step {}, expected one of{}", (run / "checkpoints").string(), number, saved);
}

}  // namespace routescope::analysis
