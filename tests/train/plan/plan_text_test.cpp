// routescope-train --plan: what it prints and refuses, and whether a run needs the memory that is planned.
#include "train/plan/plan_text.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <regex>

#include "data/base/error.h"
#include "data/base/files.h"
#include "kernels/device.h"
#include "tests/sanitizers.h"
#include "tests/train/plan/plan_case.h"
#include "tests/train/run/micro_run.h"

namespace routescope::train {
namespace {

namespace fs = std::filesystem;
using testing::MicroRun;

class PlanTool : public ::testing::Test {
 protected:
  /// The text of a plan. Expects exit status 0 and no run directory.
  std::string plan(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "--plan");
    const MicroRun::Finished finished = micro_.execute("planned", arguments);
    EXPECT_EQ(finished.status, 0) << finished.err;
    EXPECT_FALSE(fs::exists(micro_.dir("planned")));
    return finished.out;
  }
  std::string cluster_file() {
    data::write_text_atomically(micro_.directory() / "cluster.yaml", testing::cluster_file);
    return (micro_.directory() / "cluster.yaml").string();
  }
  void expect_refused(const std::vector<std::string>& arguments, int status, const std::string& words) {
    const MicroRun::Finished finished = micro_.execute("refused", arguments);
    EXPECT_EQ(finished.status, status);
    EXPECT_NE(finished.err.find(words), std::string::npos) << finished.err;
    EXPECT_EQ(std::ranges::count(finished.err, '\n'), 1) << finished.err;
  }
  MicroRun micro_;
};

TEST_F(PlanTool, WithAClusterNothingIsMeasured) {
  const std::vector<std::string> arguments{"--world-size", "3", "--cluster", cluster_file(), "train.micro_batch=1",
                                           "precision=f32"};
  const std::string text = plan(arguments);
  for (const char* words :
       {"3 on 2 nodes of two machines", "1 or 2 on each of 3 ranks", "optimizer state", "communication staging",
        "checkpoint being written", "total of every other rank", "gradients, reduce-scatter (f32)",
        "parameters, all-gather (f32)", "host values", "not hidden", "efficiency", "at most      4 ranks"}) {
    EXPECT_NE(text.find(words), std::string::npos) << words << "\n" << text;
  }
  EXPECT_EQ(text.find("measured now"), std::string::npos) << text;
  // A row each for 1, 2 and 3 ranks.
  EXPECT_TRUE(std::regex_search(text, std::regex("\n +1 +1 +4 .*100.0%\n +2 +1 +2 .*%\n +3 +2 +2 .*%\n"))) << text;
}

TEST_F(PlanTool, WithoutAClusterThisMachineIsMeasured) {
  const std::string text = plan({"--world-size", "2"});
  for (const char* words : {"this machine", "measured now", "step time", "program, libraries"})
    EXPECT_NE(text.find(words), std::string::npos) << words << "\n" << text;
}

TEST_F(PlanTool, RefusesInOneLine) {
  expect_refused({"--plan", "--world-size", "3"}, 2, "--world-size: found 3, expected 1 to 2: a step of 4 sequences");
  expect_refused({"--plan", "--world-size", "0"}, 2, "--world-size: found 0, expected 1 to 2");
  expect_refused({"--world-size", "2"}, 2, "--world-size requires --plan");
  expect_refused({"--plan", "--cluster", "absent.yaml"}, 1, "absent.yaml");
  std::string text = testing::cluster_file;
  text.replace(text.find("cpu"), 3, "cuda");
  data::write_text_atomically(micro_.directory() / "cuda.yaml", text);
  expect_refused({"--plan", "--cluster", (micro_.directory() / "cuda.yaml").string()}, 1,
                 "cuda.yaml: device: found cuda, expected cpu as in the configuration");
  // No card is needed, but a build with the CUDA backend is.
  const std::vector<std::string> on_cuda{"--cluster", (micro_.directory() / "cuda.yaml").string(), "device=auto"};
  if (kernels::cuda_built()) {
    EXPECT_NE(plan(on_cuda).find("recompute    none"), std::string::npos);
    // The bytes that a rank sends are known without a description.
    const std::string undescribed = plan({"device=cuda", "--world-size", "2"});
    EXPECT_TRUE(std::regex_search(undescribed, std::regex("gradients, reduce-scatter \\(f32\\) +[0-9.]*[1-9]")))
        << undescribed;
    EXPECT_TRUE(std::regex_search(undescribed, std::regex("step time    unknown|not known without --cluster")))
        << undescribed;
  } else {
    expect_refused({"--plan", on_cuda[0], on_cuda[1], on_cuda[2]}, 1, "this build has no CUDA backend");
  }
}

/// The peak of a process's resident memory in bytes, read again and again until it ends.
std::size_t peak_bytes(pid_t process) {
  std::size_t peak = 0;
  const std::string file = fmt::format("/proc/{}/status", process);
  for (bool alive = true; alive;) {
    alive = false;
    std::ifstream status(file);
    for (std::string line; std::getline(status, line);) {
      if (!line.starts_with("VmHWM:")) continue;
      peak = std::max<std::size_t>(peak, 1024 * std::stoull(line.substr(6)));
      alive = true;  // a process that has ended has no such line
    }
    ::usleep(2000);
  }
  return peak;
}

TEST_F(PlanTool, ARunNeedsThePlannedMemory) {
  if (testing::address_sanitizer || testing::thread_sanitizer)
    GTEST_SKIP() << "a sanitizer takes memory of its own, which no plan knows";
  // 13.2 M parameters: large against what no part accounts for.
  const std::vector<std::string> large{"model.hidden_size=256", "model.intermediate_size=4096", "train.steps=1",
                                       "valid.every=0", "train.schedule.warmup_steps=0"};
  const std::string text = plan(large);
  std::smatch found;
  ASSERT_TRUE(std::regex_search(text, found, std::regex("\n  total +([0-9.]+)\n"))) << text;
  const double planned = std::stod(found[1]) * (1 << 20);
  const pid_t child = micro_.start("measured", large);
  const auto peak = static_cast<double>(peak_bytes(child));
  ASSERT_EQ(micro_.wait(child, "measured").status, 0);
  RecordProperty("planned_mib", static_cast<int>(planned / (1 << 20)));
  RecordProperty("peak_mib", static_cast<int>(peak / (1 << 20)));
  EXPECT_NEAR(planned / peak, 1, 0.05) << text;
}

}  // namespace
}  // namespace routescope::train
