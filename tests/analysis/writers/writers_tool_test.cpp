// Writers as a person asks for them: recorded, printed and on the page, of routed and of standard models.
#include <fmt/format.h>

#include <cmath>
#include <fstream>

#include "data/base/files.h"
#include "data/hdf5/file.h"
#include "tests/analysis/analyze_tool.h"

namespace routescope::analysis {
namespace {

using Writing = AnalyzeTool;

bool has_text(const std::filesystem::path& file, const std::string& text) {
  return data::read_text(file).find(text) != std::string::npos;
}

TEST_F(Writing, OfARunAreRecordedBesideItsEffectsAndShown) {
  make("run", {0, 2});
  expect_done("track --run run", "run/analysis.h5: 2 rows");
  EXPECT_TRUE(load_record(dir / "run/analysis.h5").rows.back().writers.empty());
  expect_done("report --run run", "run/report.html");
  EXPECT_TRUE(has_text(dir / "run/report.html", "\"writers\":[]"));

  expect_done("probe --run run --writers", "writers (zero and mean of each in all reads)");
  const AnalysisRecord record = load_record(dir / "run/analysis.h5");
  ASSERT_EQ(record.rows.size(), 2U);
  EXPECT_TRUE(record.rows[0].writers.empty()) << "that row was there, and nobody asked for its writers";
  ASSERT_FALSE(record.rows[1].writers.empty());
  EXPECT_GT(std::abs(record.rows[1].writers.zero[1].delta_nll.value), 0);
  EXPECT_FALSE(record.rows[1].ablations.front().sets.empty());
  expect_done("probe --run run --writers", "step 2 is there already, with its writers");
  expect_done("report --run run", "run/report.html");
  EXPECT_TRUE(has_text(dir / "run/report.html", "\"mode\":\"block_attn_res, block_sum\""));
  // Weights are uniform in this run's routing.h5, and the embedding is a source of its own.
  const model::ReadPlan plan = record.identity.plan();
  double weight = 0;
  for (int r = 0; r < plan.num_routed(); ++r)
    weight += 1.0 / static_cast<double>(plan.reads[static_cast<std::size_t>(r)].columns.size()) / plan.num_routed();
  expect_done("inspect --run run",
              fmt::format("mean weight over the reads behind them: embedding {:.3f}, attention ", weight));
  std::ofstream(dir / "task.jsonl") << R"({"clean": [7, 8], "answer": 10})"
                                    << "\n";
  expect_refused("probe --run run --task task.jsonl --writers", 2, "--writers: found the prompts of a task");
}

TEST_F(Writing, OfAStandardModelAreAllThatIsMeasured) {
  testing::make_run(dir / "standard", testing::micro_config(model::Residual::standard, model::AttnResSource::block_sum),
                    {0, 2});
  make("run", {0, 2});
  expect_done("track --run standard --writers", "standard/analysis.h5: 2 rows");
  const AnalysisRecord record = load_record(dir / "standard/analysis.h5");
  ASSERT_EQ(record.rows.size(), 2U);
  EXPECT_TRUE(record.identity.sets.empty());
  EXPECT_TRUE(record.rows[1].ablations.empty());
  EXPECT_EQ(record.rows[1].writers.mean.size(), record.identity.plan().reads.size());
  EXPECT_EQ(record.rows[1].reference_nll, record.rows[0].intact_nll);
  expect_done("probe --run standard --writers --step all", "step 2 is there already, with its writers");
  expect_done("inspect --run standard", "probes       2 of 2 checkpoints");

  expect_done("report --run standard", "standard/report.html");
  EXPECT_TRUE(has_text(dir / "standard/report.html", "\"mode\":\"standard\""));
  EXPECT_TRUE(has_text(dir / "standard/report.html", "\"claims\":[]"));
  expect_done("track --run run --writers", "run/analysis.h5: 2 rows");
  for (const char* beside : {"--run standard", "--baseline standard/analysis.h5"}) {
    expect_done(std::string("report --run run ") + beside, "run/report.html");
    EXPECT_TRUE(has_text(dir / "run/report.html", "\"mode\":\"standard\"")) << beside;
    EXPECT_TRUE(has_text(dir / "run/report.html", "\"mode\":\"block_attn_res, block_sum\"")) << beside;
    EXPECT_TRUE(has_text(dir / "run/report.html", "Not examined: no wrapped baseline was given")) << beside;
  }
  for (const std::string option : {"--sets all", "--atlas", ""})
    expect_refused("probe --run standard " + option + (option.empty() ? "" : " --writers"), 1,
                   "'standard': it has no reads to probe");
  EXPECT_EQ(rows("standard/analysis.h5"), 2U);
}

TEST_F(Writing, OfABareModelArePrintedOrRecordedWhereAsked) {
  std::filesystem::create_directories(dir / "model");
  testing::micro_model(testing::micro_config(model::Residual::full_attn_res, model::AttnResSource::cumulative))
      .save(dir / "model");
  const ProbeTokens tokens = testing::micro_tokens(3, 8);
  {
    data::hdf5::File file = data::hdf5::File::create(dir / "tokens.h5");
    file.write("tokens", tokens.ids, {3, 8});
  }
  expect_done("probe --model model --tokens tokens.h5 --writers", "contribution of the embedding through history");
  EXPECT_FALSE(std::filesystem::exists(dir / "model/analysis.h5"));
  expect_done("probe --model model --tokens tokens.h5 --writers --out a.h5", "a.h5: 1 rows");
  EXPECT_FALSE(load_record(dir / "a.h5").rows[0].writers.empty());
}

}  // namespace
}  // namespace routescope::analysis
