#include "tests/train/mpi/job.h"

#include <sys/wait.h>

#include <fstream>
#include <sstream>
#include <thread>

namespace routescope::testing {

namespace {

/// Whether the process is routescope-train (after the fork it is mpirun for a moment).
bool runs_the_program(pid_t process) {
  std::ifstream file("/proc/" + std::to_string(process) + "/comm");
  std::string name;
  return std::getline(file, name) && name.starts_with("routescope-trai");  // the kernel keeps 15 characters
}

}  // namespace

std::vector<std::string> job_settings(std::int64_t steps, const std::vector<std::string>& more) {
  std::vector<std::string> settings{"train.steps=" + std::to_string(steps), "train.tokens_per_step=192",
                                    "checkpoint.every=5", "routing.every=3", "distributed.bucket_mb=1"};
  settings.insert(settings.end(), more.begin(), more.end());
  return settings;
}

bool ended(pid_t child) {
  siginfo_t info{};
  return ::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == child;
}

bool lives(pid_t process) {
  std::ifstream file("/proc/" + std::to_string(process) + "/stat");
  std::string stat;
  if (!std::getline(file, stat)) return false;
  const std::size_t end = stat.rfind(')');
  return end != std::string::npos && end + 2 < stat.size() && stat[end + 2] != 'Z';
}

bool wait_until(pid_t child, const std::function<bool()>& condition, double seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!condition()) {
    if ((child != 0 && ended(child)) || std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

std::vector<pid_t> wait_for_ranks(pid_t mpirun, std::size_t count) {
  std::vector<pid_t> ranks;
  wait_until(mpirun, [&] {
    ranks.clear();
    for (const pid_t child : children_of(mpirun)) {
      if (runs_the_program(child)) ranks.push_back(child);
    }
    return ranks.size() == count;
  });
  return ranks.size() == count ? ranks : std::vector<pid_t>{};
}

std::vector<std::string> error_lines(const std::string& err) {
  std::vector<std::string> lines;
  std::istringstream text(err);
  for (std::string line; std::getline(text, line);) {
    if (line.find("routescope-train: error:") != std::string::npos) lines.push_back(line);
  }
  return lines;
}

}  // namespace routescope::testing
