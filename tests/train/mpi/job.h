// What the tests of whole jobs share: a micro run started as ranks under mpirun, and what happens to its processes.
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
/// Whether a process that is not our child is there and no zombie.
bool lives(pid_t process);

/// The ranks that `mpirun` started, in order; waits for all `count` of them. Empty if it ended before.
std::vector<pid_t> wait_for_ranks(pid_t mpirun, std::size_t count);

/// Until `condition`, the end of `child` (0: of none) or the time is over; whether the condition came.
bool wait_until(pid_t child, const std::function<bool()>& condition, double seconds = 60);

/// The lines of this program in what a job printed: a launcher adds its own.
std::vector<std::string> error_lines(const std::string& err);

}  // namespace routescope::testing
