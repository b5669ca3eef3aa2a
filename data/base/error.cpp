#include "data/base/error.h"

#include <fcntl.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <system_error>

#include "data/base/command_line.h"
#include "data/base/text.h"

namespace routescope::data {

namespace {

/// The text of a line of the log, which may hold names of files.
class PrintableText : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
    const std::string text = printable_lines({message.payload.data(), message.payload.size()});
    out.append(text.data(), text.data() + text.size());
  }
  std::unique_ptr<spdlog::custom_flag_formatter> clone() const override { return std::make_unique<PrintableText>(); }
};

// Else the first file that is opened takes the place of a missing standard stream, and what is printed goes into it.
void open_missing_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (::fcntl(stream, F_GETFD) < 0 && errno == EBADF && ::open("/dev/null", O_RDWR) != stream) std::_Exit(1);
}

void prepare() {
  open_missing_streams();
  std::signal(SIGPIPE, SIG_IGN);  // writing fails instead, and unfinished files are removed
  std::signal(SIGXFSZ, SIG_IGN);  // the same beyond the limit on file sizes
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  formatter->add_flag<PrintableText>('*').set_pattern("%H:%M:%S %*");
  spdlog::set_formatter(std::move(formatter));
}

int report(const std::string& tool, const std::string& text, int status) {
  std::fflush(stdout);
  const std::string line = tool + ": error: " + printable(text) + "\n";
  // Standard error may be closed or full: the status still says that the tool failed.
  for (std::size_t done = 0; done < line.size();) {
    const ssize_t count = ::write(STDERR_FILENO, line.data() + done, line.size() - done);
    if (count < 0 && errno != EINTR) break;
    done += count > 0 ? static_cast<std::size_t>(count) : 0;
  }
  return status;
}

int report_output(const std::string& tool, int reason) {
  return report(tool, fmt::format("standard output: cannot write: {}", std::strerror(reason)), 1);
}

}  // namespace

int run_tool(const std::string& tool, const std::function<int()>& body) {
  prepare();
  try {
    const int status = body();
    // A full disk or a closed pipe behind standard output shows only here.
    if (std::fflush(stdout) != 0) return report_output(tool, errno);
    return status;
  } catch (const UsageError& error) {
    return report(tool, error.what(), 2);
  } catch (const std::bad_alloc&) {
    return report(tool, "out of memory", 1);
  } catch (const std::system_error& error) {
    if (std::ferror(stdout) != 0) return report_output(tool, error.code().value());
    return report(tool, error.what(), 1);
  } catch (const std::exception& error) {
    return report(tool, error.what(), 1);
  }
}

}  // namespace routescope::data
