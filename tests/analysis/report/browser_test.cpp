// The page in a real browser: no script fails, every figure has content, and keyboard, choices and print work.
#include "tests/analysis/report/browser.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "analysis/report/page/page_data.h"
#include "tests/analysis/report/report_sample.h"

namespace routescope::analysis {
namespace {

using nlohmann::json;
using testing::Browser;

/// The page's data with a text.
json data_of(const Study& study) {
  return page_data(study, testing::sample_text(testing::sample_config(), 2, 12));
}

TEST_F(Browser, ShowsOneRun) {
  const json data = data_of(testing::sample_study(1, true));
  const json seen = open(data, 1300);
  expect_whole(seen, data);
  EXPECT_TRUE(seen.at("views").empty());
}

TEST_F(Browser, ShowsKeysValuesAndWaysAndSaysOfThemWhatIsShown) {
  Study study = testing::sample_study(1, false, "run", true);
  const auto captions = [&] {
    const json seen = open(data_of(study), 1300);
    expect_whole(seen, data_of(study), {"parts", "ways"});
    return seen.dump();
  };
  AblationEffects& effects = study.runs[0].record.rows.back().ablations.front();
  effects.repaired_share = {-0.2, {-0.3, -0.1}};
  EXPECT_NE(captions().find("later routing adds 20 [10, 30] % to the frozen effect"), std::string::npos);
  effects.repaired_share = {0.2, {-0.1, 0.3}};
  const std::string nothing = captions();
  EXPECT_EQ(nothing.find("later routing adds"), std::string::npos);
  EXPECT_NE(nothing.find("it is not shown that later routing repairs or adds anything"), std::string::npos);
}

TEST_F(Browser, ShowsAStudyAndEachOfItsRuns) {
  const json data = data_of(testing::sample_study(3, true, "study"));
  const json seen = open(data, 1300);
  expect_whole(seen, data);
  ASSERT_EQ(seen.at("views").size(), 4U);
  for (std::size_t v = 0; v < 4; ++v) {
    const json& view = seen.at("views").at(v);
    expect_sections(view.at("sections"));
    // The mean over the runs first, then each of them.
    for (const json& row : view.at("masses")) {
      std::size_t s = 0;
      while (data.at("sets").at(s).at("title") != row.at(0)) ++s;
      double sum = 0;
      for (const json& run : data.at("runs")) sum += run.at("probes").at("mass").back().at(s).get<double>();
      const double mass =
          v == 0 ? sum / 3 : data.at("runs").at(v - 1).at("probes").at("mass").back().at(s).get<double>();
      EXPECT_NEAR(std::stod(row.at(1).get<std::string>()), mass, 0.5001e-3) << v << " " << row;
    }
  }
}

TEST_F(Browser, ShowsEveryMassByItsName) {
  const json data = data_of(testing::sample_study(1, true));
  const json seen = open(data, 1300);
  EXPECT_EQ(seen.at("errors"), json::array());
  const std::map<std::string, std::pair<std::string, std::string>> kinds = {
      {"alpha", {"weight \u03b1", "mass"}},
      {"contribution", {"contribution", "contribution"}},
      {"norm_mass", {"norm-weighted", "norm_mass"}}};
  ASSERT_EQ(seen.at("masses").size(), 6U);
  std::set<std::string> shown;
  for (const json& view : seen.at("masses")) {
    const auto& [name, field] = kinds.at(view.at("value"));
    const bool lifted = view.at("lifted");
    SCOPED_TRACE(name + (lifted ? ", lift" : ""));
    shown.insert(view.at("plane").get<std::string>());
    expect_sections(view.at("sections"));
    const std::string kind = lifted ? name + ", lift over step 0" : name;
    for (const char* figure : {"plane", "routing", "slices"})
      EXPECT_NE(view.at(figure).get<std::string>().find(kind), std::string::npos) << figure;
    EXPECT_NE(view.at("emergence").get<std::string>().find("mass (" + kind + ")"), std::string::npos);
    const json& masses = data.at("runs").at(0).at("probes").at(field);
    ASSERT_EQ(view.at("masses").size(), std::size_t{num_slices});
    for (const json& row : view.at("masses")) {
      std::size_t s = 0;
      while (data.at("sets").at(s).at("title") != row.at(0)) ++s;
      const double mass = masses.back().at(s).get<double>() - (lifted ? masses.front().at(s).get<double>() : 0.0);
      std::string text = row.at(1);
      if (text.starts_with("\u2212")) text.replace(0, std::string("\u2212").size(), "-");
      EXPECT_NEAR(std::stod(text), mass, 0.5001e-3) << row;
    }
  }
  EXPECT_EQ(shown.size(), 6U);
}

TEST_F(Browser, SaysWhereAnOlderRecordLacksAMass) {
  json data = data_of(testing::sample_study(1, false));
  json& run = data.at("runs").at(0);
  run["probes"]["contribution"] = nullptr;
  run["probes"]["step"].at(0) = 1;
  for (json& masses : run["snapshots"]["contribution"]) masses = nullptr;
  const json seen = open(data, 1300);
  EXPECT_EQ(seen.at("errors"), json::array());
  for (const json& view : seen.at("masses")) {
    for (const json& section : view.at("sections")) EXPECT_FALSE(section.at("broken").get<bool>()) << section;
    const std::string plane = view.at("plane"), routing = view.at("routing");
    const bool lacks = view.at("value") == "contribution";
    EXPECT_EQ(plane.find("no contribution mass: they were made before analysis.h5 2.2") != std::string::npos, lacks);
    EXPECT_EQ(routing.find("no contribution mass: it was made before routing.h5 1.2") != std::string::npos, lacks);
    EXPECT_EQ(plane.find("Step 0 was not probed") != std::string::npos, !lacks && view.at("lifted").get<bool>());
  }
}

TEST_F(Browser, RunsNoScriptButItsOwn) {
  const json data = data_of(testing::sample_study(1, true));
  std::string page = study_page(data);
  const std::string drawn = document_of(page, 1300);
  EXPECT_NE(drawn.find("<circle"), std::string::npos);
  page.insert(page.rfind("</body>"),
              "<script>document.body.dataset.foreign = 'ran'</script>\n"
              "<img src='x' onerror=\"document.body.dataset.foreign = 'ran'\">\n");
  const std::string attacked = document_of(page, 1300);
  EXPECT_NE(attacked.find("<circle"), std::string::npos);
  EXPECT_EQ(attacked.find("data-foreign"), std::string::npos);
}

/// The numbers after `words` in `text`.
double number_after(const std::string& text, const std::string& words) {
  const std::size_t at = text.find(words);
  return at == std::string::npos ? std::nan("") : std::strtod(text.c_str() + at + words.size(), nullptr);
}

// The claim, the figure's sentence and the table speak of one mass.
TEST_F(Browser, TheHeaviestSliceHasTheLargestMassThatIsComparedAnywhere) {
  const Study study = testing::sample_study(1, true);
  const json data = data_of(study);
  const json seen = open(data, 1300);
  double largest = 0;
  std::string name;
  for (const json& row : seen.at("free_masses")) {
    const double mass = std::strtod(row.at(1).get<std::string>().c_str(), nullptr);
    if (mass <= largest) continue;
    largest = mass;
    name = row.at(0);
  }
  ASSERT_GT(largest, 0);
  const std::string evidence = seen.at("claims").at(2).at("evidence").dump();
  EXPECT_NEAR(number_after(evidence, name + " (free mass "), largest, 0.0051) << evidence;
  EXPECT_NE(seen.at("plane").get<std::string>().find("heaviest slice is " + name), std::string::npos)
      << name << ": " << seen.at("plane");
  EXPECT_NE(seen.at("plane").get<std::string>().find("free mass (weight \u03b1) against the rise"), std::string::npos);
}

TEST_F(Browser, FitsANarrowScreen) {
  const json data = data_of(testing::sample_study(2, true));
  const json seen = open(data, 500);  // the narrowest window that the browser makes
  expect_whole(seen, data);
  EXPECT_LE(seen.at("wide"), seen.at("width"));
}

TEST_F(Browser, ShowsARunThatWasNotProbed) {
  StudyRun run;
  run.name = "<b>unprobed</b>";
  run.routing = testing::sample_routing(testing::sample_config(), 5, 40);
  run.trained_steps = 40;
  run.tokens_seen = 40 * 64;
  const json data = page_data(make_study({run}));
  const json seen = open(data, 1300);
  EXPECT_EQ(seen.at("errors"), json::array());
  EXPECT_EQ(seen.at("heading"), "<b>unprobed</b>");
  const std::set<std::string> not_there = {"overview", "emergence", "effects",   "tasks", "atlas",
                                           "parts",    "ways",      "tokens",    "runs",  "content",
                                           "circuits", "writers",   "coalitions"};
  for (const json& section : seen.at("sections")) {
    const auto id = section.at("id").get<std::string>();
    EXPECT_FALSE(section.at("broken").get<bool>()) << id;
    if (id == "routing" || id == "entropy" || id == "loss") {
      EXPECT_FALSE(section.at("drawings").empty()) << id;
    }
    EXPECT_EQ(section.at("hidden").get<bool>(), not_there.count(id) == 1) << id;
  }
}

}  // namespace
}  // namespace routescope::analysis
