// data/formats/analysis.md and study.md list the datasets that analysis.h5 and study.h5 have, and no others.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "analysis/findings/findings.h"
#include "analysis/record/study_file.h"
#include "tests/analysis/record/filled_record.h"
#include "tests/data/base/temp_dir.h"
#include "tests/data/records/format_page.h"

namespace routescope::analysis {
namespace {

using testing::PageField;
using Lines = std::vector<std::string>;

// What the pages call ABLATION and NAME.
const std::vector<std::pair<std::string, std::string>> placeholders{
    {"/interaction/(mean|resample|patch)/", "/interaction/DONOR/"},
    {"(^|/)(mask|zero|freeze|(mean|resample|patch)(_value|_key|_both)?)/", "$1ABLATION/"},
    {"/motif/[^/]*/", "/motif/NAME/"},
    {"(^|/)(position|repeat|class)_class$", "$1NAME_class"},
    {"/token_(position|repeat|class)$", "/token_NAME"},
    {"/delta_nll_(position|repeat|class)$", "/delta_nll_NAME"},
    {"^/runs/[^/]*/", "/runs/NAME/"},
};

std::vector<PageField> page(const char* name) {
  return testing::page_fields(testing::read_page(name));
}

bool is_finding(const PageField& field) {
  return field.path.starts_with("/dissociation/") || field.path.starts_with("/motif/") ||
         field.path.starts_with("/interaction/") || field.path.starts_with("/content/") ||
         field.path.starts_with("/learned/");
}

TEST(RecordPageTest, AnalysisPageAndFileAgree) {
  const data::TempDir dir;
  AnalysisRecord record = testing::filled_record();
  save_record(record, dir / "analysis.h5");
  const data::hdf5::File file = data::hdf5::File::open(dir / "analysis.h5");
  EXPECT_EQ(testing::differences(page("analysis.md"), testing::file_fields(file, placeholders)), Lines{});
}

/// A measured dataset of analysis.h5 in study.h5; nothing if it is left out there.
std::optional<PageField> in_study(PageField field, const Lines& leading) {
  const bool measured = field.axes.size() > 0 && field.axes[0] == "step" && field.type != "string";
  if (!measured || field.path.ends_with("/step") || is_finding(field)) return std::nullopt;
  field.type = "float32";
  field.axes.erase(field.axes.begin());
  field.axes.insert(field.axes.begin(), leading.begin(), leading.end());
  return field;
}

// study.md describes measurements and findings by those of analysis.md.
TEST(RecordPageTest, StudyPageAndFileAgree) {
  const data::TempDir dir;
  Study study;
  std::vector<AnalysisRecord> records;
  for (const char* name : {"a", "b"}) {
    StudyRun& run = study.runs.emplace_back();
    run.name = name;
    run.record = testing::filled_record();
    run.findings = find(run.record);
    records.push_back(run.record);
  }
  study.pooled = pool(records);
  StudyBaseline& baseline = study.baselines.emplace_back();
  baseline.record = testing::filled_record();
  baseline.record.rows = {baseline.record.rows.back()};
  write_study(study, dir / "study.h5");

  std::vector<PageField> expected = page("study.md");
  for (const PageField& field : page("study.md")) {
    const bool of_runs = field.axes == Lines{"run"} || field.path == "/probe_tokens";
    if (of_runs) continue;
    expected.push_back(field);
    expected.back().path = "/baseline" + field.path;
  }
  for (const PageField& field : page("analysis.md")) {
    for (const char* group : {"/runs/NAME", "/pooled"}) {
      if (!is_finding(field)) continue;
      expected.push_back(field);
      expected.back().path = group + field.path;
    }
    if (const auto measured = in_study(field, {"run", "step"})) expected.push_back(*measured);
    if (const auto measured = in_study(field, {"step"})) {
      expected.push_back(*measured);
      expected.back().path = "/baseline" + measured->path;
    }
  }
  const data::hdf5::File file = data::hdf5::File::open(dir / "study.h5");
  EXPECT_EQ(testing::differences(expected, testing::file_fields(file, placeholders)), Lines{});
}

}  // namespace
}  // namespace routescope::analysis
