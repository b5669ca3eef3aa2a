// The errors for bad input and wrong usage, and how a tool reports them.
#pragma once

#include <fmt/format.h>

#include <functional>
#include <stdexcept>
#include <string>

namespace routescope::data {

/// Bad input or a failed system call. The text is one line: the file, the key or offset, what was found, what was
/// expected.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& what) : std::runtime_error(what) {}
  template <class... Args>
  explicit Error(fmt::format_string<Args...> format, Args&&... args)
      : std::runtime_error(fmt::format(format, std::forward<Args>(args)...)) {}
};

/// Wrong use of a command line: exit status 2 instead of 1.
class UsageError : public Error {
 public:
  using Error::Error;
};

/// Runs a tool's body; prints a caught exception as "TOOL: error: ..." on one line of printable text and returns the
/// exit status (0 done, 1 failed, 2 wrong usage). First of all it opens standard streams that are missing on /dev/null,
/// lets writing fail where SIGPIPE and SIGXFSZ would end the process, and makes the lines of the log printable.
int run_tool(const std::string& tool, const std::function<int()>& body);

}  // namespace routescope::data
