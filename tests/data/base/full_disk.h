// A full disk, for one process.
#pragma once

#include <hdf5.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <functional>
#include <string>

#include "data/base/error.h"

namespace routescope::data {

/// Runs `body` in a child process whose files cannot grow past `bytes`, as on a full disk. Returns its result or the
/// text of its Error, or the signal that killed it.
inline std::string on_full_disk(rlim_t bytes, const std::function<std::string()>& body) {
  std::array<int, 2> pipe{};
  if (::pipe(pipe.data()) != 0) return "no pipe";
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, RLIM_INFINITY};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    std::string text;
    try {
      text = body();
    } catch (const Error& error) {
      text = error.what();
    }
    const bool sent = ::write(pipe[1], text.data(), text.size()) == static_cast<ssize_t>(text.size());
    H5close();  // what HDF5 does at the end of a process, where it meets what it could not write
    ::_exit(sent ? 0 : 1);
  }
  ::close(pipe[1]);
  std::string out;
  std::array<char, 4096> piece{};
  for (ssize_t count = 0; (count = ::read(pipe[0], piece.data(), piece.size())) > 0;)
    out.append(piece.data(), static_cast<std::size_t>(count));
  ::close(pipe[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WIFSIGNALED(status)) return fmt::format("killed by signal {} after: {}", WTERMSIG(status), out);
  return out;
}

}  // namespace routescope::data
