// How long a tool's waiting threads spin (kernels/cpu/threads.h).
#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include "tests/places.h"

namespace routescope::train {
namespace {

/// What OpenMP's library says at its start about its environment; the tool starts twice if it starts itself anew.
std::string environment_of(const std::string& tool, const std::string& variables) {
  const std::string command = "env -u GOMP_SPINCOUNT -u OMP_WAIT_POLICY " + variables + " OMP_DISPLAY_ENV=verbose " +
                              testing::bin_dir() + "/" + tool + " --version 2>&1";
  std::string text;
  FILE* output = ::popen(command.c_str(), "r");
  char part[4096];
  for (std::size_t n = 0; (n = std::fread(part, 1, sizeof part, output)) > 0;) text.append(part, n);
  EXPECT_EQ(::pclose(output), 0) << command;
  return text;
}

TEST(Threads, WaitingThreadsSleepUnlessTheUserSaysOtherwise) {
  for (const char* tool : {"routescope-train", "routescope-bench"}) {
    const std::string text = environment_of(tool, "");
    if (text.find("GOMP_SPINCOUNT") == std::string::npos) GTEST_SKIP() << "not GNU's OpenMP";
    EXPECT_NE(text.find("GOMP_SPINCOUNT = '1000'"), std::string::npos) << tool << text;
    EXPECT_EQ(environment_of(tool, "OMP_WAIT_POLICY=active").find("GOMP_SPINCOUNT = '1000'"), std::string::npos);
    const std::string chosen = environment_of(tool, "GOMP_SPINCOUNT=77");
    EXPECT_NE(chosen.find("GOMP_SPINCOUNT = '77'"), std::string::npos) << tool << chosen;
    EXPECT_EQ(chosen.find("GOMP_SPINCOUNT = '1000'"), std::string::npos) << tool << chosen;
  }
}

}  // namespace
}  // namespace routescope::train
