#include "kernels/cpu/threads.h"

#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <sstream>

namespace routescope::kernels {

namespace {

namespace fs = std::filesystem;

// About two microseconds: longer than a barrier of threads that all run, shorter than a thread takes to wake up.
constexpr const char* kSpins = "1000";

constexpr double kUnlimited = std::numeric_limits<double>::infinity();

double ratio(const std::string& quota, double period) {
  char* end = nullptr;
  const double value = std::strtod(quota.c_str(), &end);
  return end != quota.c_str() && value > 0 && period > 0 ? value / period : kUnlimited;  // "max" and -1: no limit
}

/// Of one group.
double quota_of_group(const fs::path& group) {
  std::string quota;
  double period = 0;
  if (std::ifstream(group / "cpu.max") >> quota >> period) return ratio(quota, period);
  if (std::ifstream(group / "cpu.cfs_quota_us") >> quota && std::ifstream(group / "cpu.cfs_period_us") >> period)
    return ratio(quota, period);
  return kUnlimited;
}

bool is_set(const char* name) {
  return std::getenv(name) != nullptr;
}

}  // namespace

double quota_of_groups(const std::string& membership, const fs::path& root) {
  double quota = kUnlimited;
  // NUMBER:CONTROLLERS:PATH, and 0::PATH of version 2. In a container PATH may lie outside of what is mounted.
  std::istringstream lines(membership);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool cpu = ("," + controllers + ",").find(",cpu,") != std::string::npos;
    if (!controllers.empty() && !cpu) continue;
    for (const fs::path& mounted : {root, root / "unified", root / controllers, root / "cpu"}) {
      fs::path group = fs::path(line.substr(second + 1)).lexically_normal().relative_path();
      for (;; group = group.parent_path()) {
        quota = std::min(quota, quota_of_group(mounted / group));
        if (group.empty()) break;
      }
    }
  }
  return quota;
}

void settle_threads(char** argv) {
  if (!is_set("GOMP_SPINCOUNT") && !is_set("OMP_WAIT_POLICY")) {
    std::error_code unknown;
    const fs::path program = fs::read_symlink("/proc/self/exe", unknown);
    if (!unknown && ::setenv("GOMP_SPINCOUNT", kSpins, 0) == 0) ::execv(program.c_str(), argv);
    // It could not start anew: it waits as the library does by itself.
  }
  if (is_set("OMP_NUM_THREADS")) return;
  std::ostringstream membership;
  membership << std::ifstream("/proc/self/cgroup").rdbuf();
  const double quota = std::ceil(quota_of_groups(membership.str()));
  if (quota < omp_get_num_procs()) omp_set_num_threads(std::max(1, static_cast<int>(quota)));
}

}  // namespace routescope::kernels
