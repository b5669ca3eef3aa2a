// routescope-analyze coalitions from the outside, and its sentences.
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "analysis/coalitions/coalition_file.h"
#include "analysis/coalitions/coalition_text.h"
#include "tests/analysis/analyze_tool.h"

namespace routescope::analysis {
namespace {

using CoalitionTool = AnalyzeTool;

TEST_F(CoalitionTool, WritesWhatItMeasures) {
  make("run", {0, 4});
  expect_done("coalitions --run run --permutations 1 --out c.json", "c.json");
  EXPECT_FALSE(std::filesystem::exists(dir / "run/coalitions.h5")) << "a JSON file is all that was asked for";
  std::ifstream file(dir / "c.json");
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
}

TEST_F(CoalitionTool, RecordsEveryStepOnce) {
  make("run", {0, 4});
  expect_done("coalitions --run run --permutations 0", "(0 orders)");
  const ToolResult all = run("coalitions --run run --permutations 0 --step all");
  EXPECT_NE(all.output.find("run/coalitions.h5: step 4 is there already"), std::string::npos) << all.output;
  EXPECT_NE(all.output.find("run/coalitions.h5: 2 rows"), std::string::npos) << all.output;
  const CoalitionRecord record = load_coalitions(dir / "run/coalitions.h5");
  ASSERT_EQ(record.rows.size(), 2U);
  EXPECT_EQ(record.rows[0].step, 0);
  EXPECT_EQ(record.rows[1].model_sha256, data::sha256_file(data::checkpoint_dir(dir / "run", 4) / "model.safetensors"));
  expect_refused("coalitions --run run --permutations 1", 1, "attribute settings: found ");
  expect_done("coalitions --run run --permutations 1 --out other.h5", "other.h5: 1 rows");
  expect_done("coalitions --model run/checkpoints/step-00000000 --tokens 1,2,3,4 --permutations 0", "(0 orders)");
}

TEST_F(CoalitionTool, MeasuresOnPromptsOfATask) {
  make("run", {4});
  std::ofstream(dir / "mine.jsonl") << R"({"clean": [7, 8, 9], "answer": 10, "distractor": 11}
{"clean": [7, 8], "answer": 12, "distractor": 13}
)";
  expect_done("coalitions --run run --task mine.jsonl --permutations 0", "run/coalitions-task-mine.h5: 1 rows");
  const CoalitionRecord record = load_coalitions(dir / "run/coalitions-task-mine.h5");
  ASSERT_TRUE(record.identity.tokens.is_task());
  EXPECT_EQ(record.identity.tokens.answers[1].position, 1);
  EXPECT_EQ(record.identity.tokens.answers[0].distractor, 11);
  expect_done("coalitions --run run --task mine.jsonl --permutations 0", "step 4 is there already");
  expect_refused("coalitions --run run --task mine.jsonl --tokens 1,2", 2, "--task: found --tokens beside it");
  expect_refused("coalitions --run run --task nothing.jsonl", 1, "nothing.jsonl");
}

TEST_F(CoalitionTool, RefusesWhatCannotBeMeasured) {
  make("run", {0, 4});
  expect_refused("coalitions", 2, "expected either --run or --model");
  expect_refused("coalitions --model run/checkpoints/step-00000004", 2, "--model needs --tokens or --task");
  expect_refused("coalitions --run run --step all --out c.json", 2, "a JSON file is of one step: found 2 steps");
  expect_refused("coalitions --run run --permutations -1", 2, "--permutations");
  expect_refused("coalitions --run run --margin 0", 2, "--margin");
  expect_refused("coalitions --run run --until-width -0.1", 2, "--until-width");
  expect_refused("coalitions --run run --until-width nan", 2, "--until-width");
  testing::make_run(dir / "plain", testing::micro_config(model::Residual::standard, model::AttnResSource::block_sum),
                    {4});
  expect_refused("coalitions --run plain", 1, "it has no reads to probe");
  std::ofstream(dir / "run/coalitions.h5") << "nothing";
  expect_refused("coalitions --run run", 1, "coalitions.h5");
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
