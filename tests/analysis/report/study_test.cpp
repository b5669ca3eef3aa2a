// A study takes runs and baselines from their files or from memory, pools what can be pooled, and says what cannot.
#include "analysis/report/study.h"

#include <gtest/gtest.h>

#include <cmath>

#include "data/base/error.h"
#include "tests/analysis/findings/study_case.h"
#include "tests/analysis/probe/micro_run.h"
#include "tests/data/base/expect_error.h"
#include "tests/data/base/temp_dir.h"

namespace routescope::analysis {
namespace {

StudyRun run_of(std::uint64_t seed, const std::vector<std::int64_t>& steps = testing::study_steps) {
  StudyRun run;
  run.name = "study-" + std::to_string(seed);
  run.record = testing::study_record(seed, steps);
  return run;
}

TEST(StudyTest, OneRunIsAStudyOfOne) {
  const Study study = make_study({run_of(1)});
  EXPECT_FALSE(study.pooled);
  EXPECT_EQ(study.pooled_runs(), 1U);
  EXPECT_EQ(study.findings().step, testing::study_steps);
  EXPECT_EQ(study.findings().runs, 1);
  ASSERT_TRUE(study.config);
  EXPECT_EQ(study.config->num_hidden_layers, 6);
  EXPECT_TRUE(study.not_pooled.empty());
  EXPECT_FALSE(make_study({StudyRun{}}).probed());
}

TEST(StudyTest, PoolsTheStepsThatAllRunsHave) {
  const Study study = make_study({run_of(1), run_of(2, {0, 2, 4, 16, 32})});
  ASSERT_TRUE(study.pooled);
  EXPECT_EQ(study.pooled_runs(), 2U);
  EXPECT_EQ(study.findings().runs, 2);
  const std::vector<std::int64_t> common = {0, 2, 4, 16};
  EXPECT_EQ(study.findings().step, common);
  for (const StudyRun& run : study.runs) {
    ASSERT_EQ(run.record.rows.size(), 4U);
    EXPECT_EQ(run.findings.step, common);
  }
}

TEST(StudyTest, SaysWhyRunsAreNotPooledAndLeavesThemWhole) {
  StudyRun other = run_of(2);
  other.record.identity.settings.margin = 0.5;
  const Study study = make_study({run_of(1, {0, 1}), other});
  EXPECT_FALSE(study.pooled);
  EXPECT_NE(study.not_pooled.find("margin"), std::string::npos) << study.not_pooled;
  EXPECT_EQ(study.pooled_runs(), 1U);
  EXPECT_EQ(study.runs[0].record.rows.size(), 2U);
  EXPECT_EQ(study.runs[1].record.rows.size(), testing::study_steps.size());
  EXPECT_NE(make_study({run_of(1, {0, 1}), run_of(2, {2, 4})}).not_pooled.find("no probed step in common"),
            std::string::npos);
}

TEST(StudyTest, TakesABaselineAtItsLastRow) {
  StudyBaseline baseline{"wrapped", testing::study_baseline(), {}};
  ProbeRow later = baseline.record.rows[0];
  later.step = 400;
  baseline.record.put(later);
  const Study study = make_study({run_of(1)}, {baseline});
  ASSERT_EQ(study.baselines[0].record.rows.size(), 1U);
  EXPECT_EQ(study.baselines[0].record.rows[0].step, 400);
  EXPECT_EQ(study.baselines[0].findings.content.size(), 1U);
}

TEST(StudyTest, NeedsARun) {
  EXPECT_NE(data::error_of([] { make_study({}); }).find("--run"), std::string::npos);
}

TEST(StudyTest, OverRunsLeavesOutWhatIsNotThere) {
  const OverRuns over = over_runs({1, std::nan(""), 3});
  EXPECT_EQ(over.mean, 2);
  EXPECT_EQ(over.least, 1);
  EXPECT_EQ(over.greatest, 3);
  EXPECT_TRUE(std::isnan(over_runs({std::nan("")}).mean));
}

TEST(StudyTest, LoadsRunDirectories) {
  const data::TempDir dir;
  StudyRequest request;
  request.about = "text";
  for (std::uint64_t seed : {1, 2}) {
    const auto run = dir / ("study-" + std::to_string(seed));
    testing::make_run(run, testing::micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum));
    AnalysisRecord record = testing::study_record(seed);
    save_record(record, run / "analysis.h5");
    request.runs.push_back(run);
  }
  AnalysisRecord task = testing::study_record(3);
  task.identity.tokens.answers.assign(static_cast<std::size_t>(task.identity.tokens.sequences), {1, -1});
  task.identity.task.name = "mine";
  for (const char* name : {"task-mine.h5", "task-mine.h5-step-4-0.h5"}) save_record(task, dir / "study-1" / name);
  AnalysisRecord wrapped = testing::study_baseline();
  save_record(wrapped, dir / "wrapped.h5");
  request.baselines = {dir / "wrapped.h5", dir / "study-1" / "analysis.h5"};
  const Study study = load_study(request);
  ASSERT_EQ(study.runs.size(), 2U);
  EXPECT_EQ(study.about, "text");
  EXPECT_EQ(study.runs[1].name, "study-2");
  EXPECT_EQ(study.runs[1].seed, 1);  // make_run()'s
  EXPECT_EQ(study.runs[1].trained_steps, 4);
  EXPECT_EQ(study.runs[1].tokens_seen, 256);
  EXPECT_EQ(study.runs[1].checkpoints, 4U);
  EXPECT_DOUBLE_EQ(study.runs[1].valid_loss, 3.6 - 0.1 * 4);
  EXPECT_EQ(study.runs[1].routing.snapshots.size(), 4U);
  EXPECT_EQ(study.findings().step, testing::study_steps);
  EXPECT_EQ(study.baselines[0].name, "wrapped");
  EXPECT_EQ(study.baselines[1].name, "study-1");
  ASSERT_EQ(study.runs[0].tasks.size(), 1U);  // what was measured otherwise is left out
  EXPECT_EQ(study.runs[0].tasks[0].identity.task.name, "mine");
  EXPECT_TRUE(study.runs[1].tasks.empty());
}

TEST(StudyTest, NamesTheFileThatIsMissing) {
  const data::TempDir dir;
  const auto run = dir / "run";
  testing::make_run(run, testing::micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum));
  StudyRequest request;
  request.runs = {run};
  // A run alone need not have been probed.
  EXPECT_FALSE(load_study(request).probed());
  EXPECT_EQ(load_study(request).config->num_hidden_layers, 6);
  const auto error = [&] { return data::error_of([&] { load_study(request); }); };
  request.runs.push_back(run);
  EXPECT_NE(error().find("run/analysis.h5: no such file"), std::string::npos) << error();
  request.runs = {run};
  AnalysisRecord record = testing::study_record(1);
  save_record(record, run / "analysis.h5");
  request.baselines = {dir / "absent.h5"};
  EXPECT_NE(error().find("absent.h5: no such file"), std::string::npos) << error();
  request.baselines = {};
  request.runs = {dir / "nowhere"};
  EXPECT_NE(error().find("nowhere: no such directory, expected a run"), std::string::npos) << error();
  std::filesystem::create_directories(dir / "empty");
  request.runs = {dir / "empty"};
  EXPECT_NE(error().find("routing.h5: no such file, expected a run directory"), std::string::npos) << error();
}

}  // namespace
}  // namespace routescope::analysis
