// The page's section "Alone and together", and its claim: they say only what the rows show.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "analysis/report/page/coalition_data.h"
#include "analysis/report/page/page_data.h"
#include "tests/analysis/coalitions/filled_coalitions.h"
#include "tests/analysis/report/browser.h"
#include "tests/analysis/report/report_sample.h"

namespace routescope::analysis {
namespace {

using nlohmann::json;
using testing::Browser;

StudyCoalitions sample(std::size_t runs) {
  StudyCoalitions out(runs);
  for (auto& run : out)
    run = {{"", testing::filled_coalitions({0, 10, 40})}, {"mine", testing::filled_coalitions({40})}};
  return out;
}

json page_of(const StudyCoalitions& coalitions) {
  return page_data(testing::sample_study(coalitions.size(), false),
                   testing::sample_text(testing::sample_config(), 2, 12), {}, coalitions);
}

bool says(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(CoalitionsPage, HoldsTheNumbersOfTheRows) {
  const StudyCoalitions coalitions = sample(1);
  const json data = page_of(coalitions), &text = data.at("runs").at(0).at("coalitions").at(0);
  EXPECT_TRUE(text.at("task").is_null());
  EXPECT_EQ(data.at("runs").at(0).at("coalitions").at(1).at("task"), "mine");
  ASSERT_EQ(text.at("rows").size(), 3U);
  const CoalitionRow& row = coalitions[0][0].record.rows[1];
  const json& shown = text.at("rows").at(1);
  EXPECT_EQ(shown.at("step"), 10);
  EXPECT_EQ(shown.at("pair").size(), 153U);
  EXPECT_NEAR(shown.at("shapley").at(5).at(2).get<double>(), row.shapley[5].ci.upper,
              5.1e-4 * std::abs(row.shapley[5].ci.upper));
  EXPECT_EQ(shown.at("verdict").at(7), "redundant");
  EXPECT_EQ(shown.at("partner").at(7), 13);
  EXPECT_EQ(data.at("claims").size(), 4U);
  EXPECT_EQ(page_of(StudyCoalitions(1)).at("claims").size(), 3U);
}

// What is said of idle and redundant slices where the verdicts are these.
TEST(CompanyClaim, SaysWhatIsShownAndNothingElse) {
  const Study study = testing::sample_study(1);
  StudyCoalitions coalitions = sample(1);
  CoalitionRow& row = coalitions[0][0].record.rows.back();
  const auto claim = [&](const std::vector<std::pair<std::size_t, InCompany>>& verdicts) {
    row.in_company.assign(num_slices, InCompany::none);
    row.partner.assign(num_slices, -1);
    for (const auto& [slice, verdict] : verdicts) {
      row.in_company[slice] = verdict;
      if (verdict == InCompany::redundant) row.partner[slice] = 4;
    }
    return *company_claim(study, coalitions);
  };
  EXPECT_FALSE(company_claim(study, StudyCoalitions(1)).has_value());
  const Claim nothing = claim({});
  EXPECT_EQ(nothing.tone, "open");
  EXPECT_TRUE(nothing.evidence.empty());
  EXPECT_TRUE(says(nothing.verdict, "no slice with mass is shown to do nothing alone"));

  const Claim idle = claim({{1, InCompany::idle}});
  EXPECT_EQ(idle.tone, "yes");
  EXPECT_EQ(idle.verdict, "Of 1 such slice 1 is idle and 0 redundant");
  ASSERT_EQ(idle.evidence.size(), 1U);
  EXPECT_TRUE(says(idle.evidence[0], "is idle")) << idle.evidence[0];

  const Claim redundant = claim({{1, InCompany::redundant}});
  EXPECT_EQ(redundant.tone, "no");
  ASSERT_EQ(redundant.evidence.size(), 1U);
  EXPECT_TRUE(says(redundant.evidence[0], "is redundant"));
  EXPECT_TRUE(says(redundant.evidence[0], "where " + std::string("embedding")));
  EXPECT_FALSE(says(redundant.evidence[0], "is idle"));

  const Claim open = claim({{1, InCompany::undecided}, {2, InCompany::undecided}});
  EXPECT_EQ(open.tone, "open");
  EXPECT_EQ(open.verdict, "Not decided for any of 2 such slices");
  ASSERT_EQ(open.evidence.size(), 1U);
  EXPECT_FALSE(says(open.evidence[0], "is idle") || says(open.evidence[0], "is redundant"));

  const Claim some = claim({{1, InCompany::idle}, {2, InCompany::undecided}});
  EXPECT_EQ(some.tone, "part");
  EXPECT_EQ(some.verdict, "Of 2 such slices 1 is idle and 0 redundant");
  EXPECT_EQ(claim({{1, InCompany::idle}, {2, InCompany::redundant}}).tone, "part");
}

TEST_F(Browser, ShowsWhatSlicesDoAloneAndTogether) {
  StudyCoalitions coalitions = sample(1);
  for (RunCoalitions& one : coalitions[0]) one.record.rows.back().pair_p.assign(153, 1.0);
  const json data = page_of(coalitions);
  for (const int width : {1300, 500}) {
    const json seen = open(data, width);
    expect_whole(seen, data, {"coalitions"});
    EXPECT_LE(seen.at("wide"), seen.at("width"));
    const std::string text = seen.at("coalitions");
    EXPECT_TRUE(says(text, "No interaction is shown beyond the margin.")) << text;
    EXPECT_TRUE(says(text, "idle: nothing beside any other slice either")) << text;
    EXPECT_TRUE(says(text, "redundant: more than the margin beside ")) << text;
  }
  CoalitionRow& last = coalitions[0][0].record.rows.back();
  last.in_company.assign(num_slices, InCompany::none);
  last.all_p = 0.3;
  last.pair_p[3] = 0.01;
  last.pair[3] = {0.5, {0.4, 0.6}};
  const json seen = open(page_of(coalitions), 1300);
  EXPECT_EQ(seen.at("errors"), json::array());
  const std::string text = seen.at("coalitions");
  EXPECT_FALSE(says(text, "idle: nothing") || says(text, "redundant: more")) << text;
  EXPECT_TRUE(says(text, "No slice with a free mass of 0.1 or more is shown to do nothing alone.")) << text;
  EXPECT_TRUE(says(text, "1 cover, 0 break")) << text;
  EXPECT_TRUE(says(text, "It is not shown that ablating every slice costs anything")) << text;
}

}  // namespace
}  // namespace routescope::analysis
