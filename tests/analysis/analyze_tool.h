// Runs routescope-analyze in a directory of its own, for tests of what a person types and what comes back.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <string>
#include <vector>

#include "analysis/record/run_probe.h"
#include "tests/analysis/probe/micro_run.h"
#include "tests/data/base/temp_dir.h"
#include "tests/places.h"

namespace routescope::analysis {

struct ToolResult {
  int status;
  std::string output;  // stdout and stderr
};

class AnalyzeTool : public ::testing::Test {
 protected:
  data::TempDir dir;

  /// `launcher` stands before the program.
  ToolResult run(const std::string& arguments, const std::string& launcher = " ") const {
    const std::string command = "cd " + dir.path().string() + " && OMP_NUM_THREADS=1" + launcher + testing::bin_dir() +
                                "/routescope-analyze " + arguments + " 2>&1";
    FILE* pipe = ::popen(command.c_str(), "r");
    std::string output;
    std::array<char, 4096> buffer;
    while (const std::size_t n = std::fread(buffer.data(), 1, buffer.size(), pipe)) output.append(buffer.data(), n);
    const int status = ::pclose(pipe);
    return {WEXITSTATUS(status), output};
  }
  void expect_done(const std::string& arguments, const std::string& part) const {
    const ToolResult result = run(arguments);
    EXPECT_EQ(result.status, 0) << result.output;
    EXPECT_NE(result.output.find(part), std::string::npos) << result.output << "lacks " << part;
  }
  /// One line that holds `part`, the given status, and no file or directory but those that were there.
  void expect_refused(const std::string& arguments, int status, const std::string& part) const {
    const auto count = [&] { return std::distance(std::filesystem::recursive_directory_iterator(dir.path()), {}); };
    const auto before = count();
    const ToolResult result = run(arguments);
    EXPECT_EQ(result.status, status) << result.output;
    EXPECT_NE(result.output.find(part), std::string::npos) << result.output << "lacks " << part;
    EXPECT_EQ(std::count(result.output.begin(), result.output.end(), '\n'), 1) << result.output;
    EXPECT_EQ(before, count()) << "debris after: " << arguments;
  }
  void make(const std::string& name = "run", const std::vector<std::int64_t>& steps = {0, 1, 2, 4}) const {
    testing::make_run(dir / name,
                      testing::micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum), steps);
  }
  std::size_t rows(const std::string& file) const { return load_record(dir / file).rows.size(); }
};

}  // namespace routescope::analysis
