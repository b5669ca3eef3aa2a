// A real browser that opens the page and uses it (browser.js).
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "analysis/report/page/html.h"
#include "analysis/routes/slices.h"
#include "data/base/files.h"
#include "tests/data/base/temp_dir.h"
#include "tests/places.h"

namespace routescope::testing {

/// The command of a browser that starts; empty where there is none. Ubuntu's chromium-browser is a script that installs
/// one instead, and does not start.
inline std::string browser() {
  for (const std::string name : {"chromium", "chromium-browser", "google-chrome"}) {
    const std::string command = name + " --headless --no-sandbox --version > /dev/null 2>&1";
    if (std::system(command.c_str()) == 0) return name;  // NOLINT: the commands are this file's
  }
  return {};
}

inline std::string output_of(const std::string& command) {
  FILE* pipe = ::popen(command.c_str(), "r");
  std::string output;
  std::array<char, 65536> buffer;
  while (const std::size_t n = std::fread(buffer.data(), 1, buffer.size(), pipe)) output.append(buffer.data(), n);
  ::pclose(pipe);
  return output;
}

/// Sections that a page has only where a study has such results.
using Sections = std::set<std::string>;
inline const Sections optional_sections = {"circuits", "coalitions", "parts", "ways"};

class Browser : public ::testing::Test {
 protected:
  using json = nlohmann::json;
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
    std::string page = analysis::study_page(data);
    // The page's policy would not let browser.js run. Browser.RunsNoScriptButItsOwn tests it.
    const std::size_t policy = page.find("<meta http-equiv=");
    page.erase(policy, page.find('\n', policy) + 1 - policy);
    const std::string script = data::read_text(source_dir() + "/tests/analysis/report/browser.js");
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

  static void expect_whole(const json& seen, const json& data, const Sections& more = {}) {
    EXPECT_EQ(seen.at("errors"), json::array());
    EXPECT_EQ(seen.at("heading"), data.at("title"));
    EXPECT_EQ(seen.at("title"), data.at("title").get<std::string>() + " \u2013 routescope");
    EXPECT_EQ(seen.at("facts"), data.at("facts").size());
    EXPECT_EQ(seen.at("methods"), data.at("methods").size());
    expect_claims(seen, data);
    expect_sections(seen.at("sections"), more);
    expect_sections(seen.at("printed"), more);
    expect_keyboard(seen, more);
  }

  static void expect_claims(const json& seen, const json& data) {
    ASSERT_EQ(seen.at("claims").size(), data.at("claims").size());
    for (std::size_t i = 0; i < data.at("claims").size(); ++i) {
      for (const char* part : {"claim", "verdict", "evidence"})
        EXPECT_EQ(seen.at("claims").at(i).at(part), data.at("claims").at(i).at(part));
    }
  }

  /// Every section that is there has a drawing or a table with content, and a caption. `more`: the optional ones that
  /// are there.
  static void expect_sections(const json& sections, const Sections& more = {}) {
    for (const json& section : sections) {
      const auto id = section.at("id").get<std::string>();
      const bool absent = optional_sections.count(id) > more.count(id);
      EXPECT_EQ(section.at("hidden").get<bool>(), absent) << id;
      if (absent) continue;
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

  static void expect_keyboard(const json& seen, const Sections& more) {
    Sections sections;
    for (const json& figure : seen.at("keyboard")) {
      const auto id = figure.at("section").get<std::string>();
      sections.insert(id);
      EXPECT_TRUE(figure.at("focused").get<bool>()) << id;
      ASSERT_TRUE(figure.at("first").is_string()) << id;
      EXPECT_FALSE(figure.at("first").get<std::string>().empty()) << id;
      EXPECT_TRUE(figure.at("second").is_string()) << id;
      EXPECT_TRUE(figure.at("after").is_null()) << id;
    }
    Sections expected = {"atlas", "content", "effects", "emergence", "entropy",
                         "loss",  "plane",   "routing", "tasks",     "writers"};
    expected.insert(more.begin(), more.end());
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
    EXPECT_EQ(sorted.size(), std::size_t{analysis::num_slices});
    EXPECT_TRUE(std::is_sorted(sorted.rbegin(), sorted.rend()));
  }
};

}  // namespace routescope::testing
