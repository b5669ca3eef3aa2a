// Tasks from the outside: probed beside a run's text, on its page, and refused in one line where they are wrong.
#include <fstream>

#include "tests/analysis/analyze_tool.h"

namespace routescope::analysis {
namespace {

TEST_F(AnalyzeTool, ProbesTasksOfARunBesideItsText) {
  make("run", {0, 1});
  std::ofstream(dir / "mine.jsonl") << R"({"clean": [1, 2, 3], "corrupted": [4, 2, 3], "answer": 5, "distractor": 6}
{"clean": [7, 8], "corrupted": [9, 8], "answer": 10, "distractor": 11}
)";
  expect_done("track --run run --task mine.jsonl", "run/task-mine.h5: 2 rows");
  expect_done("probe --run run --task mine.jsonl --ablation patch --direction denoising",
              "task mine, denoising: answers have logit_diff");
  EXPECT_EQ(rows("run/task-mine-denoising.h5"), 2U);
  EXPECT_FALSE(std::filesystem::exists(dir / "run/analysis.h5"));
  expect_done("probe --run run", "run/analysis.h5: 2 rows");
  expect_done("report --run run", "run/report.html");
  const std::string page = data::read_text(dir / "run/report.html");
  EXPECT_NE(page.find("\"direction\":\"denoising\""), std::string::npos);
  EXPECT_NE(page.find("\"direction\":\"noising\""), std::string::npos);
  expect_refused("probe --run run --task mine.jsonl --tokens 1,2", 2, "--task: found --tokens beside it");
  expect_refused("probe --run run --direction denoising", 2, "--direction needs --task");
  expect_refused("probe --run run --task mine.jsonl --direction sideways", 2, "--direction");
  expect_refused("probe --run run --task mine.jsonl --out mine.jsonl", 2, "found the same file as");
  expect_refused("probe --run run --task nothing.jsonl", 1, "nothing.jsonl");
  std::ofstream(dir / "mine.jsonl", std::ios::app) << "{}\n";
  expect_refused("probe --run run --task mine.jsonl", 1, "mine.jsonl: line 3: found none of corrupted");
  std::filesystem::copy(dir / "run/analysis.h5", dir / "run/task-text.h5");
  expect_refused("report --run run", 1, "task-text.h5: found a probe of text, expected one of a task");
}

}  // namespace
}  // namespace routescope::analysis
