#include "data/base/error.h"

#include <algorithm>
#include <cstdio>
#include <new>

#include "data/base/command_line.h"

namespace routescope::data {

namespace {

int report(const std::string& tool, std::string text, int status) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  std::fflush(stdout);
  fmt::print(stderr, "{}: error: {}\n", tool, text);
  return status;
}

}  // namespace

int run_tool(const std::string& tool, const std::function<int()>& body) {
  try {
    const int status = body();
    // A full disk or a closed pipe behind standard output shows only here.
    if (std::fflush(stdout) != 0) return report(tool, "standard output: cannot write", 1);
    return status;
  } catch (const UsageError& error) {
    return report(tool, error.what(), 2);
  } catch (const CLI::ParseError& error) {
    return report(tool, error.what(), 2);
  } catch (const std::bad_alloc&) {
    return report(tool, "out of memory", 1);
  } catch (const std::exception& error) {
    return report(tool, error.what(), 1);
  }
}

}  // namespace routescope::data
