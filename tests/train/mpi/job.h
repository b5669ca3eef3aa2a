// For tests of whole jobs: a micro run on several ranks under mpirun, and its processes.
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "tests/train/run/micro_run.h"

namespace routescope::testing {

/// Settings of a micro run of many short steps: 6 micro-batches a step, a checkpoint every 5th.
std::vector<std::string> job_settings(std::int64_t steps, const std::vector<std::string>& more = {});

bool ended(pid_t child);
/// Whether a process that is not our child exists and is no zombie.
bool lives(pid_t process);

/// The ranks of `mpirun` in order; waits until there are `count`. Empty if mpirun ends before.
std::vector<pid_t> wait_for_ranks(pid_t mpirun, std::size_t count);

/// Waits for `condition`, the end of `child` (0: no child) or the end of the time. Returns whether `condition` holds.
bool wait_until(pid_t child, const std::function<bool()>& condition, double seconds = 60);

/// The lines of this program in the output of a job, without those of the launcher.
std::vector<std::string> error_lines(const std::string& err);

}  // namespace routescope::testing
