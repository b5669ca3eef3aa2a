// routescope-analyze coalitions from the outside, and its sentences.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "analysis/coalitions/coalition_text.h"
#include "tests/analysis/probe/micro_run.h"
#include "tests/data/base/temp_dir.h"
#include "tests/places.h"

namespace routescope::analysis {
namespace {

struct Result {
  int status;
  std::string output;
};

class CoalitionTool : public ::testing::Test {
 protected:
  void SetUp() override {
    testing::make_run(dir_ / "run",
                      testing::micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum), {0, 4});
  }
  Result run(const std::string& arguments) const {
    FILE* pipe = ::popen(("cd " + dir_.path().string() + " && OMP_NUM_THREADS=1 " + testing::bin_dir() +
                          "/routescope-analyze coalitions " + arguments + " 2>&1")
                             .c_str(),
                         "r");
    std::string output;
    std::array<char, 4096> buffer;
    while (const std::size_t n = std::fread(buffer.data(), 1, buffer.size(), pipe)) output.append(buffer.data(), n);
    return {WEXITSTATUS(::pclose(pipe)), output};
  }
  void expect_refused(const std::string& arguments, int status, const std::string& part) const {
    const Result result = run(arguments);
    EXPECT_EQ(result.status, status) << result.output;
    EXPECT_NE(result.output.find(part), std::string::npos) << result.output << "lacks " << part;
    EXPECT_EQ(std::count(result.output.begin(), result.output.end(), '\n'), 1) << result.output;
  }
  data::TempDir dir_;
};

TEST_F(CoalitionTool, WritesWhatItMeasures) {
  const Result result = run("--run run --permutations 1 --out c.json");
  ASSERT_EQ(result.status, 0) << result.output;
  std::ifstream file(dir_ / "c.json");
  const nlohmann::json found = nlohmann::json::parse(file);
  EXPECT_EQ(found.at("step"), 4);
  EXPECT_EQ(found.at("slice").size(), 18U);
  EXPECT_EQ(found.at("pair").size(), 153U);
  double players = 0, slices = 0;
  for (const auto& one : found.at("shapley")) players += one.at("value").get<double>();
  for (const auto& one : found.at("slice_shapley")) slices += one.at("value").get<double>();
  const double all = found.at("all").at("value");
  EXPECT_NEAR(players, all, 1e-5);
  EXPECT_NEAR(slices, all, 1e-5);
  EXPECT_NE(run("--run run --permutations 0").output.find("(0 orders)"), std::string::npos);
}

TEST_F(CoalitionTool, RefusesWhatCannotBeMeasured) {
  expect_refused("", 2, "expected either --run or --model");
  expect_refused("--model run/checkpoints/step-00000004", 2, "--model needs --tokens");
  expect_refused("--run run --step all --out c.json", 2, "--out is the file of one step: found 2 steps");
  expect_refused("--run run --permutations -1", 2, "--permutations");
  expect_refused("--run run --margin 0", 2, "--margin");
  testing::make_run(dir_ / "plain", testing::micro_config(model::Residual::standard, model::AttnResSource::block_sum),
                    {4});
  expect_refused("--run plain", 1, "it has no reads to probe");
}

TEST(CoalitionText, SaysOfSlicesWhatIsShownAndNothingElse) {
  CoalitionRow row;
  row.free_mass.assign(num_slices, 0.2);
  for (auto* estimates : {&row.alone, &row.sufficiency, &row.slice_shapley}) estimates->resize(num_slices);
  for (auto* estimates : {&row.player_sufficiency, &row.shapley}) estimates->resize(num_players);
  row.pair.resize(pairs_of(num_slices).size());
  row.pair_p.assign(row.pair.size(), 1.0);
  row.in_company.assign(num_slices, InCompany::none);
  row.partner.assign(num_slices, -1);
  const auto text = [&] { return coalition_text(row, {}, {}, 0); };
  for (const char* word : {"idle:", "redundant:", "undecided:", "cover for each other", "breaks what"})
    EXPECT_EQ(text().find(word), std::string::npos) << word;
  EXPECT_NE(text().find("none is shown"), std::string::npos);
  row.in_company[3] = InCompany::redundant;
  row.partner[3] = 17;
  row.pair[0] = {0.5, {0.4, 0.6}};
  row.pair_p[0] = 0.01;
  EXPECT_NE(text().find("redundant: embedding.mlp.early does nothing alone, and more than the margin beside "
                        "current.mlp.late"),
            std::string::npos);
  EXPECT_NE(text().find("they cover for each other"), std::string::npos);
  row.pair[0] = {-0.5, {-0.6, -0.4}};
  EXPECT_NE(text().find("either breaks what both do"), std::string::npos);
  std::istringstream lines(text());
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 120U) << line;
}

}  // namespace
}  // namespace routescope::analysis
