// The page is one file that needs no other, and no text of a run acts in it.
#include "analysis/report/page/html.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <regex>

#include "analysis/report/page/page_data.h"
#include "tests/analysis/report/report_sample.h"

namespace routescope::analysis {
namespace {

using nlohmann::json;

json data_of(const std::string& page) {
  const std::string begin = "<script type=\"application/json\" id=\"data\">";
  const std::size_t from = page.find(begin) + begin.size();
  return json::parse(page.substr(from, page.find("</script>", from) - from));
}

std::string sample_page() {
  const Study study = testing::sample_study(2, true);
  return study_page(page_data(study, testing::sample_text(*study.config, 2, 12)));
}

TEST(Html, HasEverySectionAndItsFigure) {
  const std::string html = sample_page();
  for (const char* id : {"overview", "emergence", "plane", "effects", "atlas", "routing", "tokens", "slices", "runs",
                         "content", "entropy", "loss"}) {
    EXPECT_NE(html.find("<section id=\"" + std::string(id) + "\""), std::string::npos) << id;
    EXPECT_TRUE(std::regex_search(html, std::regex("const figures = \\{[^}]*\\b" + std::string(id) + "\\b"))) << id;
  }
  EXPECT_FALSE(std::regex_search(html, std::regex("@[A-Z]+@"))) << "a place of the template was left empty";
}

TEST(Html, NeedsNothingElse) {
  // The one address is the name of SVG's namespace, which nothing is loaded from.
  const std::string rest = std::regex_replace(sample_page(), std::regex("http://www\\.w3\\.org/2000/svg"), "");
  EXPECT_FALSE(
      std::regex_search(rest, std::regex("https?:|src=|href=|@import|url\\((?!#)|fetch\\(|XMLHttpRequest|import ")));
}

TEST(Html, LetsNoTextOfARunAct) {
  const std::string name = "a<script>alert(1)<&'b";
  Study study = testing::sample_study(1, false, name);
  study.about = "@SCRIPTS@ </script>";
  study.runs[0].record.identity.sets[0] = "</script><i>";
  RoutedText text = testing::sample_text(*study.config, 2, 12);
  text.tokens[0] = "</script><b>";
  const std::string html = study_page(page_data(study, text));
  EXPECT_EQ(data_of(html).at("text").at("tokens").at(0).at(0), "</script><b>");
  EXPECT_EQ(data_of(html).at("title"), name);
  EXPECT_EQ(html.find("</script><"), std::string::npos);
  EXPECT_EQ(html.find("alert(1)<"), std::string::npos);
  // Nothing enters the page but as data.
  EXPECT_EQ(html.find(name), std::string::npos);
  json data = data_of(html);
  data["title"] = "</script><img>";
  const std::string hostile = study_page(data);
  EXPECT_EQ(data_of(hostile).at("title"), "</script><img>");
  EXPECT_EQ(hostile.find("<img>"), std::string::npos);
}

}  // namespace
}  // namespace routescope::analysis
