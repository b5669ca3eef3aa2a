// scripts/figures.py draws what is in the files, from one run, several, or a study, and the same twice.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <regex>

#include "analysis/record/study_file.h"
#include "analysis/report/study.h"
#include "data/base/files.h"
#include "tests/analysis/findings/study_case.h"
#include "tests/data/base/temp_dir.h"
#include "tests/places.h"

namespace routescope::analysis {
namespace {

int status_of(const std::string& command) {
  return std::system(command.c_str());  // NOLINT: the commands are this file's
}

class FiguresTest : public ::testing::Test {
 protected:
  data::TempDir dir;

  void SetUp() override {
    if (status_of(testing::python() + " -c 'import h5py, matplotlib, numpy' 2>/dev/null") != 0)
      GTEST_SKIP() << "no python3 with h5py, numpy and matplotlib (scripts/install_packages.sh figures)";
  }
  /// Exit status 0, or not; what it said is in DIR/out/../log.
  bool draw(const std::string& arguments, const std::string& out) {
    return status_of(testing::python() + " '" + testing::source_dir() + "/scripts/figures.py' " + arguments +
                     " --out '" + (dir / out).string() + "' > '" + log().string() + "' 2>&1") == 0;
  }
  std::filesystem::path log() const { return dir / "log"; }
  std::string file(const std::string& name) const { return "'" + (dir / name).string() + "'"; }
};

TEST_F(FiguresTest, EveryFigureOfOneRunAndTheSameTwice) {
  AnalysisRecord record = testing::study_record(1);
  save_record(record, dir / "analysis.h5");
  ASSERT_TRUE(draw("--analysis " + file("analysis.h5") + " --format svg", "a")) << data::read_text(log());
  ASSERT_TRUE(draw("--analysis " + file("analysis.h5") + " --format svg", "b")) << data::read_text(log());
  for (const char* name : {"emergence", "plane", "slices", "atlas", "content"}) {
    const std::string svg = data::read_text(dir / "a" / (std::string(name) + ".svg"));
    EXPECT_EQ(svg, data::read_text(dir / "b" / (std::string(name) + ".svg"))) << name;
    EXPECT_EQ(svg.find("<dc:date>"), std::string::npos) << name;
  }
  // The numbers of the last step, as text.
  const std::string slices = data::read_text(dir / "a" / "slices.svg");
  const std::size_t motif = testing::slice_index("embedding.mlp.early");
  for (const AblationEffects& effects : record.rows.back().ablations)
    EXPECT_NE(slices.find(fmt::format("{:+.3f}", effects.sets[motif].delta_nll.value)), std::string::npos);
  const std::string captions = data::read_text(dir / "a" / "captions.md");
  EXPECT_NE(captions.find("Sequences: 32."), std::string::npos) << captions;
  EXPECT_NE(captions.find("Unit: nat/token."), std::string::npos) << captions;
}

TEST_F(FiguresTest, AStudyAndItsRuns) {
  std::vector<StudyRun> runs;
  std::string files;
  for (std::uint64_t seed : {1, 2}) {
    StudyRun run;
    run.name = "study-" + std::to_string(seed);
    run.record = testing::study_record(seed);
    save_record(run.record, dir / (run.name + ".h5"));
    files += " " + file(run.name + ".h5");
    runs.push_back(std::move(run));
  }
  write_study(make_study(std::move(runs)), dir / "study.h5");
  ASSERT_TRUE(draw("--analysis" + files + " --format svg", "runs")) << data::read_text(log());
  EXPECT_EQ(data::read_text(log()).find("skipped"), std::string::npos) << data::read_text(log());
  ASSERT_TRUE(draw("--analysis " + file("study.h5") + " --format svg", "study")) << data::read_text(log());
  EXPECT_EQ(data::read_text(log()).find("skipped"), std::string::npos) << data::read_text(log());
  // What needs no pooling says the same; its places and shades are the same up to the file's single precision.
  const auto labels = [&](const char* folder) {
    const std::string svg = data::read_text(dir / folder / "slices.svg");
    const std::regex text(">([^<>]+)</(text|tspan)>");
    std::vector<std::string> out;
    for (std::sregex_iterator found(svg.begin(), svg.end(), text), end; found != end; ++found)
      out.push_back((*found)[1]);
    return out;
  };
  EXPECT_GT(labels("runs").size(), 2U * num_slices);
  EXPECT_EQ(labels("runs"), labels("study"));
}

TEST_F(FiguresTest, WhatIsMissingIsLeftOutAndSaid) {
  AnalysisRecord record = testing::study_record(1);
  for (ProbeRow& row : record.rows) row.atlas = {};
  save_record(record, dir / "analysis.h5");
  ASSERT_TRUE(draw("--analysis " + file("analysis.h5") + " --format pdf", "out")) << data::read_text(log());
  EXPECT_NE(data::read_text(log()).find("figures.py: skipped atlas:"), std::string::npos) << data::read_text(log());
  EXPECT_FALSE(std::filesystem::exists(dir / "out" / "atlas.pdf"));
  EXPECT_TRUE(std::filesystem::exists(dir / "out" / "plane.pdf"));

  data::write_text_atomically(dir / "text.h5", "no HDF5\n");
  EXPECT_FALSE(draw("--analysis " + file("text.h5"), "none"));
  EXPECT_NE(data::read_text(log()).find("text.h5: cannot be read as HDF5"), std::string::npos)
      << data::read_text(log());
}

}  // namespace
}  // namespace routescope::analysis
