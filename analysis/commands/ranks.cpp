#include "analysis/commands/ranks.h"

#include <sstream>
#include <string>

#include "kernels/comm/agree.h"

namespace routescope::analysis {

bool Ranks::ask(const std::function<bool()>& question) const {
  double answer = 0;
  kernels::agree(communicator, "what rank 0 sees", [&] { answer = communicator.rank() == 0 && question() ? 1 : 0; });
  communicator.all_reduce({&answer, 1}, kernels::Reduction::max, "what rank 0 sees");
  return answer != 0;
}

std::vector<data::CheckpointEntry> Ranks::checkpoints(
    const std::filesystem::path& run, const std::function<std::vector<data::CheckpointEntry>()>& find) const {
  std::vector<data::CheckpointEntry> found;
  kernels::agree(communicator, "checkpoints to probe", [&] {
    if (communicator.rank() == 0) found = find();
  });
  std::string steps;
  for (const data::CheckpointEntry& entry : found) steps += std::to_string(entry.step) + " ";
  std::istringstream all(communicator.broadcast(steps, "checkpoints to probe"));
  found.clear();
  for (std::int64_t step = 0; all >> step;) found.push_back({step, data::checkpoint_dir(run, step)});
  return found;
}

}  // namespace routescope::analysis
