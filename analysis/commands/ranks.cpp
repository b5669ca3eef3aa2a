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
    const std::function<std::vector<data::CheckpointEntry>()>& find) const {
  std::vector<data::CheckpointEntry> found;
  kernels::agree(communicator, "checkpoints to probe", [&] {
    if (communicator.rank() == 0) found = find();
  });
  std::string entries;  // a step and its directory for each
  for (const data::CheckpointEntry& entry : found)
    entries += std::to_string(entry.step) + " " + entry.dir.string() + std::string(1, '\0');
  std::istringstream all(communicator.broadcast(entries, "checkpoints to probe"));
  found.clear();
  for (std::string line; std::getline(all, line, '\0');) {
    const std::size_t blank = line.find(' ');
    found.push_back({std::stoll(line.substr(0, blank)), line.substr(blank + 1)});
  }
  return found;
}

}  // namespace routescope::analysis
