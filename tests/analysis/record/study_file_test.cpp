// study.h5 holds the numbers of all runs, the findings of each and of all, and the baseline; and only of a study.
#include "analysis/record/study_file.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numeric>

#include "analysis/report/study.h"
#include "data/base/error.h"
#include "data/hdf5/file.h"
#include "tests/analysis/findings/study_case.h"
#include "tests/data/base/expect_error.h"
#include "tests/data/base/temp_dir.h"

namespace routescope::analysis {
namespace {

StudyRun run_of(std::uint64_t seed, const std::vector<std::int64_t>& steps = testing::study_steps) {
  StudyRun run;
  run.name = "study-" + std::to_string(seed);
  run.seed = static_cast<std::int64_t>(seed);
  run.trained_steps = 16;
  run.tokens_seen = 1024;
  run.valid_loss = 3.1;
  run.record = testing::study_record(seed, steps);
  return run;
}

std::vector<StudyBaseline> baseline() {
  return {{"wrapped", testing::study_baseline(), {}}};
}

Study three_runs() {
  return make_study({run_of(1), run_of(2), run_of(3)}, baseline(), "made-up numbers");
}

TEST(StudyFile, HoldsRunsFindingsAndBaseline) {
  const data::TempDir dir;
  const Study study = three_runs();
  write_study(study, dir / "study.h5");
  const data::hdf5::File file = data::hdf5::File::open(dir / "study.h5");
  EXPECT_EQ(file.text("filetype"), "routescope study");
  EXPECT_EQ(file.read_text("run"), (std::vector<std::string>{"study-1", "study-2", "study-3"}));
  data::hdf5::Shape shape;
  const std::vector<double> effect = file.read<double>("mask/delta_nll", &shape);
  EXPECT_EQ(shape, (data::hdf5::Shape{3, 6, num_slices}));
  for (std::size_t r = 0; r < 3; ++r) {
    for (std::size_t i = 0; i < 6; ++i) {
      for (std::size_t s = 0; s < num_slices; ++s) {
        // Stored in single precision.
        const double was = study.runs[r].record.rows[i].effects(Ablation::mask).sets[s].delta_nll.value;
        EXPECT_NEAR(effect[(r * 6 + i) * num_slices + s], was, 6e-8 * std::abs(was));
      }
    }
  }
  EXPECT_TRUE(file.exists("mask/delta_nll_sequence"));
  EXPECT_TRUE(file.exists("probe_tokens"));
  std::vector<std::int64_t> documents(32);
  std::iota(documents.begin(), documents.end(), 0);
  EXPECT_EQ(file.read<std::int64_t>("probe_document"), documents);
  EXPECT_EQ(file.group("mask").integer("n"), 32);
  EXPECT_EQ(file.dataset("pooled/motif/embedding_early_mlp/effect").shape(), (data::hdf5::Shape{6}));
  EXPECT_EQ(file.dataset("runs/study-2/motif/embedding_early_mlp/effect_ci").shape(), (data::hdf5::Shape{6, 2}));
  EXPECT_NE(file.group("pooled/motif/current_early").text("interval").find("3 runs"), std::string::npos);
  EXPECT_EQ(file.dataset("baseline/mask/delta_nll").shape(), (data::hdf5::Shape{1, num_slices}));
  // The wrapped model has another axis of sources and reads.
  EXPECT_EQ(file.dataset("baseline/alpha_mean").shape()[1], 12);
  EXPECT_EQ(file.dataset("alpha_mean").shape()[2], 13);
  EXPECT_EQ(file.dataset("atlas/true_effect").shape()[0], 3);
  EXPECT_LT(std::filesystem::file_size(dir / "study.h5"), 2'000'000U);
}

TEST(StudyFile, HoldsOneRunAsWell) {
  const data::TempDir dir;
  write_study(make_study({run_of(1)}), dir / "study.h5");
  const data::hdf5::File file = data::hdf5::File::open(dir / "study.h5");
  EXPECT_EQ(file.dataset("mask/delta_nll").shape(), (data::hdf5::Shape{1, 6, num_slices}));
  EXPECT_EQ(file.dataset("pooled/motif/current_early/effect").shape(), (data::hdf5::Shape{6}));
  EXPECT_FALSE(file.exists("baseline"));
}

TEST(StudyFile, RefusesWhatIsNoStudy) {
  const data::TempDir dir;
  const auto expect_refused = [&](const std::function<Study()>& make, const std::string& part) {
    const std::string error = data::error_of([&] { write_study(make(), dir / "study.h5"); });
    EXPECT_NE(error.find(part), std::string::npos) << error << " lacks " << part;
    EXPECT_FALSE(std::filesystem::exists(dir / "study.h5"));
  };
  expect_refused([] { return make_study({run_of(1), run_of(1)}); }, "two runs named 'study-1'");
  expect_refused([] { return make_study({run_of(1, {0, 1}), run_of(2, {2, 4})}); }, "no probed step in common");
  expect_refused([] { return make_study({StudyRun{}}); }, "found no probed step");
  expect_refused(
      [] {
        std::vector<StudyBaseline> other = baseline();
        other[0].record.identity.tokens.ids[3] ^= 1;
        return make_study({run_of(1)}, other);
      },
      "wrapped: was probed on other tokens");
  expect_refused(
      [] {
        StudyRun run = run_of(1);
        std::swap(run.record.identity.sets[2], run.record.identity.sets[5]);
        return make_study({run});
      },
      "index 2 named embedding.mlp.late, expected the 18 slices");
}

}  // namespace
}  // namespace routescope::analysis
