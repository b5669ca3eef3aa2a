// The ranks of a command. Rank 0 finds, prints and writes; the others measure with it.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <functional>
#include <utility>
#include <vector>

#include "data/base/manifest.h"
#include "data/base/text.h"
#include "kernels/comm/communicator.h"

namespace routescope::analysis {

struct Ranks {
  kernels::Communicator& communicator;

  /// On rank 0. What steers a terminal is shown, not sent: names come from files.
  template <class... Args>
  void print(fmt::format_string<Args...> format, Args&&... args) const {
    if (communicator.rank() != 0) return;
    fmt::print("{}", data::printable_lines(fmt::format(format, std::forward<Args>(args)...)));
    std::fflush(stdout);
  }
  /// Rank 0's answer, on all ranks: another rank may see the files otherwise a moment later.
  bool ask(const std::function<bool()>& question) const;
  /// The checkpoints of a run that rank 0 finds, on all ranks.
  std::vector<data::CheckpointEntry> checkpoints(const std::function<std::vector<data::CheckpointEntry>()>& find) const;
};

}  // namespace routescope::analysis
