#include "tests/kernels/comm/job.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

namespace routescope::testing {

namespace fs = std::filesystem;

namespace {

std::string text_of(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

/// Whether the process runs; one that ended and was not waited for does not.
bool alive(pid_t process) {
  const std::string stat = text_of("/proc/" + std::to_string(process) + "/stat");
  const std::size_t name_end = stat.rfind(')');
  return name_end != std::string::npos && name_end + 2 < stat.size() && stat[name_end + 2] != 'Z';
}

}  // namespace

Job run_ranks(int ranks, const std::vector<std::string>& command, const std::string& dir, double limit, bool each) {
  std::vector<std::string> words{ROUTESCOPE_MPIEXEC,   "--oversubscribe", "--bind-to", "none", "-n",
                                 std::to_string(ranks)};
  if (each) {
    words.insert(words.end(), {"--enable-recovery", "sh", "-c",
                               "\"$@\"; echo $? >\"" + dir + "/status.$OMPI_COMM_WORLD_RANK\"", "sh"});
  }
  words.insert(words.end(), command.begin(), command.end());
  const fs::path out = fs::path(dir) / "out", err = fs::path(dir) / "err";
  const auto begin = std::chrono::steady_clock::now();
  const pid_t child = ::fork();
  if (child == 0) {
    ::setpgid(0, 0);
    if (!std::freopen(out.c_str(), "w", stdout) || !std::freopen(err.c_str(), "w", stderr)) ::_exit(126);
    // Open MPI asks root for two confirmations; ranks share the cores of the machine.
    ::setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    ::setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    ::setenv("OMP_NUM_THREADS", "1", 1);
    ::setenv("OMP_WAIT_POLICY", "passive", 1);
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    ::execvp(arguments[0], arguments.data());
    ::_exit(127);
  }
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(); };
  int status = 0;
  while (::waitpid(child, &status, WNOHANG) == 0) {
    if (elapsed() > limit) {
      ::kill(-child, SIGKILL);
      ::waitpid(child, &status, 0);
      ADD_FAILURE() << "still running after " << limit << " s";
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  Job job{.status = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status),
          .statuses = {},
          .out = text_of(out),
          .err = text_of(err),
          .seconds = elapsed()};
  for (int r = 0; r < ranks; ++r) {
    if (each) job.statuses.push_back(std::atoi(text_of(fs::path(dir) / ("status." + std::to_string(r))).c_str()));
    const pid_t process = std::atoi(text_of(fs::path(dir) / ("process." + std::to_string(r))).c_str());
    if (process == 0) continue;
    // The launcher's children end a moment after the launcher.
    for (int i = 0; i < 400 && alive(process); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_FALSE(alive(process)) << "rank " << r << " was left behind";
    if (alive(process)) ::kill(process, SIGKILL);
  }
  return job;
}

}  // namespace routescope::testing
