// How the threads of a process share the machine with other work.
#pragma once

#include <filesystem>
#include <string>

namespace routescope::kernels {

/// The first call of a tool's main(). Threads that wait for others spin only for microseconds and then sleep: on cores
/// with other work a spinning thread takes the time that the awaited one needs. GNU's OpenMP reads this once, before
/// main(), so the process starts itself anew with GOMP_SPINCOUNT in its environment; where that or OMP_WAIT_POLICY is
/// set already it stays as it is. Without OMP_NUM_THREADS there are no more threads than the affinity mask and the
/// control groups' quota allow.
void settle_threads(char** argv);

/// Processors that the control groups of a process allow, or infinity: the least cpu.max (version 2) or
/// cpu.cfs_quota_us over cpu.cfs_period_us (version 1) of its groups and those above. `membership`: the text of
/// /proc/self/cgroup; `root`: where the control groups are mounted.
double quota_of_groups(const std::string& membership, const std::filesystem::path& root = "/sys/fs/cgroup");

}  // namespace routescope::kernels
