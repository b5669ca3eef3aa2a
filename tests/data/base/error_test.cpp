// A tool's end: its exit status and its line, whatever its standard streams are.
#include "data/base/error.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "data/base/files.h"
#include "tests/data/base/temp_dir.h"

namespace routescope::data {
namespace {

/// The status that run_tool(body) gives in a process of its own, prepared by `prepare`; -SIGNAL if that killed it.
int status_of(const std::function<void()>& prepare, const std::function<int()>& body) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    prepare();
    const int status = run_tool("tool", body);
    std::fflush(nullptr);
    ::_exit(status);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

void close_streams() {
  for (int stream = 0; stream < 3; ++stream) ::close(stream);
}

void redirect(int stream, const std::filesystem::path& file) {
  ::dup2(::open(file.c_str(), O_WRONLY | O_CREAT, 0600), stream);
}

TEST(RunToolTest, MissingStreamsAreNotTakenByFiles) {
  const TempDir dir;
  const auto write = [&] {
    const int file = ::open((dir / "x").c_str(), O_WRONLY | O_CREAT, 0600);
    fmt::print("this is printed\n");
    fmt::print(stderr, "so is this\n");
    spdlog::warn("and this");
    return file > 2 ? 0 : 9;
  };
  EXPECT_EQ(status_of(close_streams, write), 0);
  EXPECT_EQ(status_of([] { ::close(1); }, write), 0);
  EXPECT_EQ(read_text(dir / "x"), "");
}

TEST(RunToolTest, ErrorsKeepTheirStatusWithoutAPlaceToPrintThem) {
  for (const auto& prepare : std::vector<std::function<void()>>{close_streams, [] { redirect(2, "/dev/full"); },
                                                                [] { ::dup2(::open("/dev/null", O_RDONLY), 2); }}) {
    EXPECT_EQ(status_of(prepare, []() -> int { throw Error("failed"); }), 1);
    EXPECT_EQ(status_of(prepare, []() -> int { throw UsageError("wrong"); }), 2);
    EXPECT_EQ(status_of(prepare, []() -> int { throw std::bad_alloc(); }), 1);
  }
}

TEST(RunToolTest, OutputThatIsLostIsAnError) {
  const TempDir dir;
  const auto full = [&] {
    redirect(1, "/dev/full");
    redirect(2, dir / "log");
  };
  EXPECT_EQ(status_of(full, [] { return fmt::print("a result\n"), 0; }), 1);
  EXPECT_EQ(read_text(dir / "log"), "tool: error: standard output: cannot write: No space left on device\n");
  EXPECT_EQ(status_of(full, [] { return fmt::print("{}\n", std::string(100000, 'x')), 0; }), 1);
  const auto broken = [&] {
    std::array<int, 2> pipe{};
    if (::pipe(pipe.data()) != 0) ::_exit(9);
    ::dup2(pipe[1], 1);
    ::close(pipe[0]);
    std::filesystem::remove(dir / "log");
    redirect(2, dir / "log");
  };
  EXPECT_EQ(status_of(broken, [] { return fmt::print("a result\n"), 0; }), 1);
  EXPECT_EQ(read_text(dir / "log"), "tool: error: standard output: cannot write: Broken pipe\n");
}

TEST(RunToolTest, AFileThatMayNotGrowIsAnError) {
  const TempDir dir;
  const auto limited = [&] {
    redirect(2, dir / "log");
    const rlimit limit{1000, RLIM_INFINITY};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  };
  EXPECT_EQ(status_of(limited, [&] { return write_text_atomically(dir / "x", std::string(5000, 'x')), 0; }), 1);
  EXPECT_EQ(read_text(dir / "log"), "tool: error: " + (dir / "x").string() + ": cannot write: File too large\n");
  EXPECT_FALSE(std::filesystem::exists(dir / "x"));
}

TEST(RunToolTest, LinesArePrintable) {
  const TempDir dir;
  const auto both = [&] {
    redirect(1, dir / "out");
    redirect(2, dir / "err");
  };
  const auto body = []() -> int {
    spdlog::warn("\x1b]0;title\x07");
    throw Error("a\x1b[2J\nb: no such file");
  };
  EXPECT_EQ(status_of(both, body), 1);
  EXPECT_EQ(read_text(dir / "err"), "tool: error: a\\x1b[2J\\nb: no such file\n");
  const std::string log = read_text(dir / "out");
  EXPECT_NE(log.find("\\x1b]0;title\\x07\n"), std::string::npos) << log;
  EXPECT_EQ(log.find('\x1b'), std::string::npos) << log;
}

}  // namespace
}  // namespace routescope::data
