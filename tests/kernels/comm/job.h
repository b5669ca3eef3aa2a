// A job of several ranks as tests start it, and what became of it.
#pragma once

#include <string>
#include <vector>

namespace routescope::testing {

struct Job {
  int status = 0;             // of the launcher
  std::vector<int> statuses;  // of the ranks, where they were asked for; 128 + signal for one that a signal ended
  std::string out, err;
  double seconds = 0;
};

/// mpirun with so many ranks on this machine, more than cores if need be. Fails the test if it runs for longer than
/// `limit` seconds (its process group is killed then), or leaves a process behind whose number stands in
/// `dir`/process.*. `each`: every rank runs under a shell which notes its status, so that the launcher does not end the
/// others for it.
Job run_ranks(int ranks, const std::vector<std::string>& command, const std::string& dir, double limit,
              bool each = false);

}  // namespace routescope::testing
