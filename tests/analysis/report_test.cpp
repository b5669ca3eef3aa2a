// The report is one page that needs nothing else, holds its data whole, and lets no text of the run act.
#include "analysis/report.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <regex>

#include "analysis/run_probe.h"
#include "data/error.h"
#include "data/hdf5.h"
#include "tests/analysis/micro_run.h"
#include "tests/data/temp_dir.h"

namespace routescope {
namespace {

using testing::make_run;
using testing::micro_config;

std::string text_between(const std::string& text, const std::string& begin, const std::string& end) {
  const std::size_t from = text.find(begin);
  if (from == std::string::npos) return {};
  const std::size_t to = text.find(end, from + begin.size());
  return to == std::string::npos ? std::string() : text.substr(from + begin.size(), to - from - begin.size());
}

nlohmann::json data_of(const std::string& page) {
  return nlohmann::json::parse(text_between(page, "<script type=\"application/json\" id=\"data\">", "</script>"));
}

class Report : public ::testing::Test {
 protected:
  TempDir dir;
  std::filesystem::path run = dir / "run";

  void make(AttnResSource source = AttnResSource::block_sum, Residual residual = Residual::block_attn_res) {
    make_run(run, micro_config(residual, source));
  }
  void track() {
    const std::unique_ptr<Communicator> alone = single_communicator();
    RecordedProbe probe(run / "analysis.h5", identify({}, checkpoint_dir(run, 0), run), {}, *alone);
    for (const CheckpointEntry& entry : list_checkpoints(run)) probe.row(entry.step, entry.dir);
  }
  std::string page() {
    write_report(run, dir / "report.html");
    return read_text(dir / "report.html");
  }
};

TEST_F(Report, HoldsEverySectionAndTheNumbersOfTheRun) {
  make();
  track();
  const std::string html = page();
  for (const char* id : {"routing", "plane", "emergence", "loss", "entropy", "slices"}) {
    EXPECT_NE(html.find("<section id=\"" + std::string(id) + "\">"), std::string::npos) << id;
    EXPECT_TRUE(std::regex_search(html, std::regex("const figures = \\{[^}]*\\b" + std::string(id) + "\\b"))) << id;
  }
  EXPECT_FALSE(std::regex_search(html, std::regex("@[A-Z]+@"))) << "a place of the template was left empty";

  const nlohmann::json data = data_of(html);
  const AnalysisRecord record = AnalysisRecord::load(run / "analysis.h5");
  EXPECT_EQ(data.at("run"), "run");
  EXPECT_EQ(data.at("sources"), (std::vector<std::string>{"embedding", "block_1", "block_2", "current"}));
  EXPECT_EQ(data.at("reads").at("name").size(), 13U);
  EXPECT_EQ(data.at("snapshots").at("step"), (std::vector<int>{0, 1, 2, 4}));
  EXPECT_EQ(data.at("probes").at("step"), (std::vector<int>{0, 1, 2, 4}));
  EXPECT_EQ(data.at("train").at("tokens"), (std::vector<int>{64, 128, 192, 256}));
  EXPECT_EQ(data.at("valid").at("tokens"), (std::vector<int>{0, 64, 128, 256}));
  for (std::size_t p = 0; p < 4; ++p) {
    for (std::size_t s = 0; s < num_slices; ++s) {
      const nlohmann::json& shown = data.at("probes").at("delta").at(p).at(s);
      const double effect = record.rows[p].effects(Ablation::mask).delta_nll[s];
      EXPECT_EQ(shown.is_null(), std::isnan(effect));
      if (shown.is_null()) continue;
      EXPECT_NEAR(shown.get<double>(), effect, 5.1e-4 * std::abs(effect));
    }
  }
  // Weights in 1/10000; 1.attn (read 2) of four columns sees the embedding and the current block, half each.
  const std::vector<int> weights = data.at("snapshots").at("alpha").at(3);
  EXPECT_EQ(std::vector<int>(weights.begin() + 8, weights.begin() + 12), (std::vector<int>{5000, -1, -1, 5000}));
}

TEST_F(Report, NeedsNothingElse) {
  make();
  track();
  const std::string html = page();
  // The one address is the name of SVG's namespace, which nothing is loaded from.
  const std::string rest = std::regex_replace(html, std::regex("http://www\\.w3\\.org/2000/svg"), "");
  EXPECT_FALSE(
      std::regex_search(rest, std::regex("https?:|src=|href=|@import|url\\((?!#)|fetch\\(|XMLHttpRequest|import ")));
}

TEST_F(Report, LetsNoTextOfTheRunAct) {
  run = dir / "a<script>alert(1)<&'b";
  make();
  track();
  const std::string html = page();
  EXPECT_EQ(data_of(html).at("run"), "a<script>alert(1)<&'b");
  EXPECT_EQ(html.find("alert(1)<"), std::string::npos);
  EXPECT_NE(html.find("<title>a&lt;script&gt;alert(1)&lt;&amp;'b"), std::string::npos);
  // What a hostile text would need: the end of the data's element within the data.
  nlohmann::json data = data_of(html);
  data["run"] = "</script><img>";
  const std::string hostile = report_page(data);
  EXPECT_EQ(data_of(hostile).at("run"), "</script><img>");
  EXPECT_EQ(hostile.find("<img>"), std::string::npos);
}

TEST_F(Report, SaysWhatIsMissing) {
  make();
  const nlohmann::json unprobed = report_data(run);
  EXPECT_TRUE(unprobed.at("probes").at("step").empty());
  EXPECT_NE(unprobed.at("not_probed").get<std::string>().find("routescope-analyze track"), std::string::npos);
  run = dir / "standard";
  make(AttnResSource::block_sum, Residual::standard);
  const nlohmann::json standard = report_data(run);
  EXPECT_TRUE(standard.at("reads").at("name").empty());
  EXPECT_TRUE(standard.at("snapshots").at("step").empty());
  EXPECT_NE(standard.at("not_probed").get<std::string>().find("not routed"), std::string::npos);
  EXPECT_EQ(standard.at("train").at("step").size(), 4U);
  EXPECT_THROW(report_data(dir / "nowhere"), Error);
}

TEST_F(Report, ThinsLongRunsToAPageOfFiveMegabytes) {
  // Full AttnRes of 28 layers, 300 snapshots and 20000 steps: 57 reads of 58 columns each.
  ModelConfig config = micro_config(Residual::full_attn_res, AttnResSource::block_sum, 28);
  make_run(run, config, {0});
  const Model model(config, {});
  RoutingRecordInfo info = RoutingRecordView::load(run / "routing.h5").info;
  std::filesystem::remove(run / "routing.h5");
  RoutingRecord record = RoutingRecord::create(run / "routing.h5", info);
  for (std::int64_t i = 0; i < 300; ++i) record.append(testing::uniform_snapshot(model, i * 10));
  for (std::int64_t step = 1; step <= 20000; ++step) {
    record.append(TrainRow{step, step * 64, 1.0 + 1.0 / static_cast<double>(step), 1e-3, 1.0, 1000.0, 0.064});
  }
  record.flush();
  const std::string html = page();
  EXPECT_LT(html.size(), 5'000'000U);
  const nlohmann::json data = data_of(html);
  const std::vector<std::int64_t> steps = data.at("snapshots").at("step"), losses = data.at("train").at("step");
  EXPECT_EQ(steps.front(), 0);
  EXPECT_EQ(steps.back(), 2990);
  EXPECT_GT(steps.size(), 50U);
  EXPECT_EQ(data.at("train").at("rows"), 20000);
  EXPECT_LE(losses.size(), 1200U);
  EXPECT_GT(losses.size(), 400U);
  EXPECT_EQ(losses.front(), 1);
  EXPECT_EQ(losses.back(), 20000);
  // A bin's loss is the mean of its rows.
  const double last = data.at("train").at("loss").back();
  EXPECT_NEAR(last, 1.0 + 1.0 / 19900, 6e-5);
}

}  // namespace
}  // namespace routescope
