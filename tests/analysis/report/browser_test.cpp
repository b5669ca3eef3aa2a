// The page in a real browser: no script fails, every figure has content, and keyboard, choices and print work.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "analysis/report/page/html.h"
#include "analysis/report/page/page_data.h"
#include "data/base/files.h"
#include "tests/analysis/report/report_sample.h"
#include "tests/data/base/temp_dir.h"
#include "tests/places.h"

namespace routescope::analysis {
namespace {

using nlohmann::json;

/// The command of a browser that starts; empty where there is none. Ubuntu's chromium-browser is a script that installs
/// one instead, and does not start.
std::string browser() {
  for (const std::string name : {"chromium", "chromium-browser", "google-chrome"}) {
    const std::string command = name + " --headless --no-sandbox --version > /dev/null 2>&1";
    if (std::system(command.c_str()) == 0) return name;  // NOLINT: the commands are this file's
  }
  return {};
}

std::string output_of(const std::string& command) {
  FILE* pipe = ::popen(command.c_str(), "r");
  std::string output;
  std::array<char, 65536> buffer;
  while (const std::size_t n = std::fread(buffer.data(), 1, buffer.size(), pipe)) output.append(buffer.data(), n);
  ::pclose(pipe);
  return output;
}

class Browser : public ::testing::Test {
 protected:
  data::TempDir dir;
  std::string command = browser();

  void SetUp() override {
    if (command.empty()) GTEST_SKIP() << "no browser (Debian's chromium, scripts/install_packages.sh test)";
  }

  /// The page's document after its scripts have run.
  std::string document_of(const std::string& page, int width) const {
    data::write_text_atomically(dir / "page.html", page);
    return output_of(
        fmt::format("timeout 300 {} --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir={} "
                    "--virtual-time-budget=20000 --window-size={},2000 --dump-dom file://{} 2> {}",
                    command, (dir / "profile").string(), width, (dir / "page.html").string(), (dir / "log").string()));
  }

  /// What browser.js sees of the page.
  json open(const json& data, int width) const {
    std::string page = study_page(data);
    // The page's policy would not let browser.js run. Browser.RunsNoScriptButItsOwn tests it.
    const std::size_t policy = page.find("<meta http-equiv=");
    page.erase(policy, page.find('\n', policy) + 1 - policy);
    const std::string script = data::read_text(testing::source_dir() + "/tests/analysis/report/browser.js");
    const auto insert = [&](const std::string& before, const std::string& text) {
      const std::size_t at = page.rfind(before);
      ASSERT_NE(at, std::string::npos) << before;
      page.insert(at, text);
    };
    insert("<style>",
           "<script>window.browserErrors = [];\n"
           "window.addEventListener(\"error\", (event) => browserErrors.push(event.message + \" at line \" + "
           "event.lineno));</script>\n");
    insert("</body>", "<script type=\"module\">\n" + script + "</script>\n");
    const std::string dump = document_of(page, width);
    const std::string begin = "<pre id=\"seen\">";
    const std::size_t from = dump.rfind(begin), to = dump.rfind("</pre>");
    if (from == std::string::npos || to == std::string::npos) {
      ADD_FAILURE() << "browser.js did not end; the browser said:\n" << data::read_text(dir / "log");
      return json::object();
    }
    return json::parse(dump.substr(from + begin.size(), to - from - begin.size()));
  }

  static void expect_whole(const json& seen, const json& data, bool parts = false) {
    EXPECT_EQ(seen.at("errors"), json::array());
    EXPECT_EQ(seen.at("heading"), data.at("title"));
    EXPECT_EQ(seen.at("title"), data.at("title").get<std::string>() + " \u2013 routescope");
    EXPECT_EQ(seen.at("facts"), data.at("facts").size());
    EXPECT_EQ(seen.at("methods"), data.at("methods").size());
    expect_claims(seen, data);
    expect_sections(seen.at("sections"), parts);
    expect_sections(seen.at("printed"), parts);
    expect_keyboard(seen, parts);
  }

  static void expect_claims(const json& seen, const json& data) {
    ASSERT_EQ(seen.at("claims").size(), data.at("claims").size());
    for (std::size_t i = 0; i < data.at("claims").size(); ++i) {
      for (const char* part : {"claim", "verdict", "evidence"})
        EXPECT_EQ(seen.at("claims").at(i).at(part), data.at("claims").at(i).at(part));
    }
  }

  /// Every section that is there has a drawing or a table with content, and a caption. `parts`: those of keys, values
  /// and ways are there.
  static void expect_sections(const json& sections, bool parts = false) {
    for (const json& section : sections) {
      const auto id = section.at("id").get<std::string>();
      const bool of_parts = id == "parts" || id == "ways";
      EXPECT_EQ(section.at("hidden").get<bool>(), of_parts && !parts) << id;
      if (of_parts && !parts) continue;
      EXPECT_FALSE(section.at("broken").get<bool>()) << id;
      if (id == "method") continue;
      EXPECT_GT(section.at("captions"), 0) << id;
      if (id != "overview" && id != "tokens") {
        EXPECT_GT(section.at("drawings").size() + section.at("tables").size(), 0U) << id;
      }
      for (const json& marks : section.at("drawings")) EXPECT_GT(marks, 0) << id;
      for (const json& rows : section.at("tables")) EXPECT_GT(rows, 0) << id;
    }
  }

  static void expect_keyboard(const json& seen, bool parts) {
    std::set<std::string> sections;
    for (const json& figure : seen.at("keyboard")) {
      const auto id = figure.at("section").get<std::string>();
      sections.insert(id);
      EXPECT_TRUE(figure.at("focused").get<bool>()) << id;
      ASSERT_TRUE(figure.at("first").is_string()) << id;
      EXPECT_FALSE(figure.at("first").get<std::string>().empty()) << id;
      EXPECT_TRUE(figure.at("second").is_string()) << id;
      EXPECT_TRUE(figure.at("after").is_null()) << id;
    }
    std::set<std::string> expected = {"atlas", "content", "effects", "emergence", "entropy",
                                      "loss",  "plane",   "routing", "tasks"};
    if (parts) expected.insert({"parts", "ways"});
    EXPECT_EQ(sections, expected);
    for (const json& link : seen.at("navigation")) {
      EXPECT_EQ(link.at("shown"), link.at("section")) << link;
      EXPECT_EQ(link.at("focused"), link.at("shown")) << link;
    }
    EXPECT_EQ(seen.at("text").at("begin"), 0);
    EXPECT_EQ(seen.at("text").at("then"), 1);
    const json& slider = seen.at("slider");
    EXPECT_NE(slider.at("first"), slider.at("last"));
    EXPECT_EQ(slider.at("again"), slider.at("last"));
    const std::vector<double> sorted = seen.at("sorted");
    EXPECT_EQ(sorted.size(), std::size_t{num_slices});
    EXPECT_TRUE(std::is_sorted(sorted.rbegin(), sorted.rend()));
  }
};

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
    expect_whole(seen, data_of(study), true);
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
  const std::set<std::string> not_there = {"overview", "emergence", "effects", "tasks", "atlas",
                                           "parts",    "ways",      "tokens",  "runs",  "content"};
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
