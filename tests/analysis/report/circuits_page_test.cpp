// The page's section of circuits: its numbers are those of the rows, and it says only what they show.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "analysis/report/page/circuit_data.h"
#include "analysis/report/page/page_data.h"
#include "tests/analysis/report/browser.h"
#include "tests/analysis/report/report_sample.h"
#include "tests/analysis/report/sample_circuits.h"

namespace routescope::analysis {
namespace {

using nlohmann::json;
using testing::around;
using testing::Browser;

/// Of runs that were not probed, beside their circuits: quick to make.
json plain_page_of(const StudyCircuits& circuits) {
  std::vector<StudyRun> runs(circuits.size());
  for (std::size_t r = 0; r < runs.size(); ++r) {
    runs[r].name = "run-" + std::to_string(r + 1);
    runs[r].routing = testing::sample_routing(testing::sample_config(), 5, 40);
    runs[r].trained_steps = 40;
    runs[r].tokens_seen = 40 * 64;
  }
  return page_data(make_study(std::move(runs)), {}, circuits);
}

json page_of(std::size_t runs, const StudyCircuits& circuits) {
  return page_data(testing::sample_study(runs, false), testing::sample_text(testing::sample_config(), 2, 12), circuits);
}

CircuitRow& last_row(StudyCircuits& circuits, std::size_t run) {
  return circuits[run][0].record.rows.back();
}

bool says(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(CircuitsPage, HoldsTheNumbersOfTheRows) {
  const StudyCircuits circuits = testing::sample_circuits(1);
  const CircuitRecord& record = circuits[0][0].record;
  const CircuitRow& row = record.rows[1];
  const json data = circuits_data(circuits), &text = data.at("runs").at(0).at(0), &graph = data.at("graphs").at(0);
  EXPECT_TRUE(text.at("task").is_null());
  EXPECT_EQ(data.at("runs").at(0).at(1).at("task"), "induction");
  EXPECT_EQ(text.at("held_out"), 4);
  EXPECT_EQ(graph.at("edges").size(), row.kept.size());
  EXPECT_EQ(text.at("steps").at("step"), (json{0, 10, 40}));
  EXPECT_EQ(text.at("steps").at("size").at(1), row.size());
  EXPECT_EQ(text.at("steps").at("needed").at(1), (row.size() + 1) / 2);
  EXPECT_EQ(text.at("steps").at("by_score").at(1), (json{0.9, 0.88, 0.92}));
  EXPECT_TRUE(text.at("steps").at("before").at(0).is_null());
  EXPECT_EQ(text.at("steps").at("before").at(1).at(0), 1);
  const json& detail = text.at("detail").at(1);
  EXPECT_EQ(detail.at("step"), 10);
  EXPECT_EQ(detail.at("edges").size(), row.size());
  for (const json& edge : detail.at("edges")) EXPECT_EQ(row.kept[edge.at(0).get<std::size_t>()], 1);
  EXPECT_EQ(detail.at("random").size(), 3U);
  EXPECT_EQ(detail.at("score").size(), graph.at("k").size());
  // The graph: every edge ends in its read and starts at its source.
  const model::ReadPlan plan = record.identity.plan();
  for (std::size_t e = 0; e < graph.at("edges").size(); ++e) {
    const std::string name = graph.at("edges").at(e);
    const std::string read = plan.reads[graph.at("read").at(e).get<std::size_t>()].name;
    const std::string source = graph.at("sources").at(graph.at("source").at(e).get<std::size_t>()).at(0);
    EXPECT_EQ(name, read + "<-" + source.substr(0, source.find('@')));
  }
}

TEST(CircuitsPage, StaysSmallForManyStepsAndRuns) {
  const model::ModelConfig config =
      testing::micro_config(model::Residual::full_attn_res, model::AttnResSource::block_sum, 28);
  std::vector<std::int64_t> steps;
  for (std::int64_t step = 0; step < 40; ++step) steps.push_back(step);
  const json page = circuits_data(testing::sample_circuits(12, steps, config));
  EXPECT_LT(page.dump().size(), 1'500'000U);
  const json& one = page.at("runs").at(11).at(0);
  EXPECT_EQ(one.at("detail").back().at("step"), 39);
  EXPECT_EQ(one.at("steps").at("step").back(), 39);
}

// Runs that were measured otherwise are not compared, and those without a circuit have no share.
TEST(CircuitsPage, ComparesRunsThatWereMeasuredAlike) {
  StudyCircuits circuits = testing::sample_circuits(4);
  circuits[1][0].record.identity.settings.seed = 2;
  last_row(circuits, 2).kept.assign(last_row(circuits, 2).kept.size(), 0);
  circuits[3][0].record.rows.pop_back();
  for (StudyCircuits::value_type& run : circuits) run.pop_back();
  EXPECT_EQ(circuits_data(circuits).at("common").at(0).at("step"), 10);
  circuits.pop_back();
  const json groups = circuits_data(circuits).at("common");
  ASSERT_EQ(groups.size(), 1U);
  EXPECT_EQ(groups.at(0).at("step"), 40);
  EXPECT_EQ(groups.at(0).at("runs"), json::array({0}));
  EXPECT_EQ(groups.at(0).at("without"), json::array({2}));
  EXPECT_TRUE(groups.at(0).at("pairs").empty());
}

TEST_F(Browser, ShowsCircuits) {
  const json data = page_of(1, testing::sample_circuits(1));
  for (const int width : {1300, 500}) {
    const json seen = open(data, width);
    expect_whole(seen, data, {"circuits"});
    EXPECT_LE(seen.at("wide"), seen.at("width"));
    const std::string text = seen.at("circuits");
    EXPECT_TRUE(says(text, "Its faithfulness is 0.93 [0.89, 0.97].")) << text;
    EXPECT_TRUE(says(text, "The first recorded step with a circuit is 0. From step 0 on, every circuit shares more"));
    EXPECT_FALSE(says(text, "Edges that circuits of two runs share"));
    const json& task = seen.at("circuit_of_task");
    EXPECT_FALSE(task.at("broken").get<bool>());
    for (const char* words : {"for the answers of induction", "4 held-out prompts"}) {
      EXPECT_TRUE(says(task.at("words"), words)) << task;
      EXPECT_FALSE(says(text, words)) << words;
    }
  }
}

// One view for each run, whose last row shows something else.
TEST_F(Browser, SaysOfCircuitsWhatIsShown) {
  StudyCircuits circuits = testing::sample_circuits(5);
  CircuitRow& worse = last_row(circuits, 1);
  worse.above_magnitude = around(-0.1);
  worse.above_random = around(0.01);
  worse.rest_faithfulness = around(0.3);
  worse.kept_faithfulness = around(0.8, 0.05);
  for (std::size_t e = 0; e < worse.kept.size(); ++e) worse.kept[e] = e % 4 < 2;  // half of the edges are the same
  CircuitRow& nothing = last_row(circuits, 2);
  nothing.none_p = 0.2;
  for (auto* list : {&nothing.faithfulness, &nothing.area}) list->assign(list->size(), {});
  nothing.kept_faithfulness = nothing.rest_faithfulness = nothing.above_magnitude = nothing.above_random = {};
  CircuitRow& unscored = last_row(circuits, 3);
  unscored.kept_faithfulness = unscored.rest_faithfulness = {};
  for (CircuitRow* row : {&nothing, &unscored}) row->kept.assign(row->kept.size(), 0);
  circuits[4].clear();
  const json seen = open(plain_page_of(circuits), 1300);
  EXPECT_EQ(seen.at("errors"), json::array());
  std::vector<std::string> text;
  for (const json& view : seen.at("views")) {
    text.push_back(view.at("circuits"));
    for (const json& section : view.at("sections")) EXPECT_FALSE(section.at("broken").get<bool>()) << section;
  }
  ASSERT_EQ(text.size(), 5U);
  const auto expect = [&](const std::string& part, const std::vector<bool>& said) {
    for (std::size_t v = 0; v < said.size(); ++v)
      EXPECT_EQ(says(text[v], part), said[v]) << part << "\nrun " << v + 1 << ": " << text[v];
  };
  expect("The circuit has ", {true, true, false, false, false});
  expect("less than the 0.9 that it reaches", {false, true, false, false, false});
  expect("so the circuit is not complete", {false, true, false, false, false});
  expect("not shown that anything is left", {true, false, false, false, false});
  expect("a better order than mass", {true, false, false, true, false});
  expect("a worse order than mass", {false, true, false, false, false});
  expect("not shown to differ from chance", {false, true, false, false, false});
  expect("a better order than chance", {true, false, false, true, false});
  expect("It is not shown that ablating every edge costs anything", {false, false, true, false, false});
  expect("The scoring half does not show", {false, false, false, true, false});
  expect("From step 0 on, every circuit shares more", {true, false, false, false, false});
  expect("is not shown to share more edges with the one before", {false, true, true, true, false});
  expect("No circuit of this run was measured", {false, false, false, false, true});
  expect("Edges that circuits of two runs share", {true, true, false, false, false});
  EXPECT_TRUE(says(text[0], "0 of 1 pair is shown to share more edges than chance")) << text[0];
  EXPECT_TRUE(says(text[0], "No circuit at that step: run-3, run-4.")) << text[0];

  worse.kept = circuits[0][0].record.rows.back().kept;
  const std::string same = open(plain_page_of(circuits), 1300).at("circuits");
  EXPECT_TRUE(says(same, "1 of 1 pair is shown to share more edges than chance")) << same;
}

}  // namespace
}  // namespace routescope::analysis
