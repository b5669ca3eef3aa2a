// analysis.h5 for other programs: its labels, descriptions and estimands, and the findings in it.
#include <gtest/gtest.h>
#include <hdf5_hl.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "analysis/commands/tables.h"
#include "analysis/findings/findings.h"
#include "analysis/record/record.h"
#include "data/base/build.h"
#include "data/hdf5/file.h"
#include "tests/analysis/record/filled_record.h"
#include "tests/data/base/temp_dir.h"

namespace routescope::analysis {
namespace {

bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(AnalysisRecordFileTest, EveryDatasetIsLabelledAndEveryResultStatesItsEstimand) {
  const data::TempDir dir;
  AnalysisRecord record = testing::filled_record();
  save_record(record, dir / "analysis.h5");
  const data::hdf5::File file = data::hdf5::File::open(dir / "analysis.h5");
  EXPECT_EQ(file.text("filetype"), "routescope analysis");
  EXPECT_EQ(file.integers("version"), (std::vector<std::int64_t>{3, 1}));
  EXPECT_EQ(file.text("routescope_version"), data::routescope_version());
  int datasets = 0;
  each_dataset(file, [&](const data::hdf5::Dataset& dataset) {
    ++datasets;
    EXPECT_FALSE(dataset.text("description").empty()) << dataset.path();
    EXPECT_EQ(dataset.has("units"), !dataset.is_text()) << dataset.path();
    if (H5DSis_scale(dataset.id()) > 0) return;
    for (std::size_t axis = 0; axis < dataset.shape().size(); ++axis)
      EXPECT_EQ(H5DSget_num_scales(dataset.id(), static_cast<unsigned>(axis)), 1) << dataset.path() << " " << axis;
  });
  EXPECT_GT(datasets, 6 * 20);

  const auto expect_estimand = [](const data::hdf5::Object& object) {
    EXPECT_TRUE(holds(object.text("input_distribution"), "4 sequences of 8 tokens")) << object.path();
    for (const char* name : {"intervention", "metric", "unit"})
      EXPECT_FALSE(object.text(name).empty()) << object.path();
    EXPECT_EQ(object.integer("n"), 4) << object.path();
    EXPECT_EQ(object.integer("seed"), 9) << object.path();
  };
  for (const char* name :
       {"mass", "mass_sequence", "alpha_mean", "alpha_variance", "closed_form_error", "contribution",
        "contribution_sequence", "contribution_mean", "norm_mass", "norm_mass_sequence", "norm_mass_mean"})
    expect_estimand(file.dataset(name));
  for (const char* name : {"intact", "atlas", "cost", "dissociation", "content", "motif/embedding_early_mlp"})
    expect_estimand(file.group(name));
  for (Ablation ablation : record.identity.settings.ablations) {
    const data::hdf5::Group effects = file.group(to_string(ablation)),
                            control = file.group("control/" + to_string(ablation));
    for (const data::hdf5::Group* group : {&effects, &control}) {
      expect_estimand(*group);
      for (const char* name : {"interval", "test", "adjustment"}) EXPECT_FALSE(group->text(name).empty());
      EXPECT_FALSE(group->has("stopping_rule"));
    }
    EXPECT_EQ(effects.number("margin"), 0.01);
    EXPECT_EQ(control.integer("draws"), 18);  // six for each of three documents
  }
  record.identity.settings.until_decided = true;
  save_record(record, dir / "decided.h5");
  const data::hdf5::File decided = data::hdf5::File::open(dir / "decided.h5");
  EXPECT_TRUE(holds(decided.group("mask").text("stopping_rule"), "every 8 sequences"));
  EXPECT_TRUE(holds(decided.group("mask").text("interval"), "confidence sequence"));
}

TEST(AnalysisRecordFileTest, LabelsNameSlicesAndRoutes) {
  const data::TempDir dir;
  AnalysisRecord record = testing::filled_record();
  save_record(record, dir / "analysis.h5");
  const data::hdf5::File file = data::hdf5::File::open(dir / "analysis.h5");
  const auto family = file.read_text("family"), sublayer = file.read_text("sublayer"), depth = file.read_text("depth");
  EXPECT_EQ(file.read_text("slice"), record.identity.sets);
  for (std::size_t s = 0; s < num_slices; ++s) EXPECT_EQ(family[s] + "." + sublayer[s] + "." + depth[s], slice_name(s));
  // 6 layers, 3 blocks: 12 reads and the final one, which is in no slice; each route of the others is in one.
  const model::ReadPlan plan = record.identity.plan();
  data::hdf5::Shape shape;
  const auto route = file.read<std::int32_t>("route", &shape);
  EXPECT_EQ(shape, (data::hdf5::Shape{18, 13, 4}));
  for (std::size_t r = 0; r < 13; ++r) {
    std::vector<int> member(4, 0), expected(4, 0);
    for (std::size_t s = 0; s < 18; ++s) {
      for (std::size_t c = 0; c < 4; ++c) member[c] += route[(s * 13 + r) * 4 + c];
    }
    if (r < 12) {
      for (int column : plan.reads[r].columns) expected[static_cast<std::size_t>(column)] = 1;
    }
    EXPECT_EQ(member, expected) << r;
  }
  record.identity.settings.sets = {"3.attn:embedding", "all"};
  record.identity.sets = record.identity.settings.sets;
  record.rows.clear();
  save_record(record, dir / "sets.h5");
  EXPECT_FALSE(data::hdf5::File::open(dir / "sets.h5").exists("family"));
  EXPECT_EQ(load_record(dir / "sets.h5").identity.sets, record.identity.sets);
}

TEST(AnalysisRecordFileTest, HoldsTheFindings) {
  const data::TempDir dir;
  AnalysisRecord record = testing::filled_record();
  save_record(record, dir / "analysis.h5");
  const Findings findings = find(record);
  const data::hdf5::File file = data::hdf5::File::open(dir / "analysis.h5");
  ASSERT_FALSE(findings.motifs.empty());
  for (const Motif& motif : findings.motifs) {
    const data::hdf5::Group group = file.group("motif/" + motif.name);
    EXPECT_EQ(group.integer("of_paper"), motif.of_paper ? 1 : 0);
    const auto excess = group.read<double>("excess"), bounds = group.read<double>("excess_ci");
    ASSERT_EQ(excess.size(), 3U);
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(excess[i], motif.excess[i].value);
      EXPECT_EQ(bounds[2 * i + 1], motif.excess[i].ci.upper);
    }
    const double onset = group.read<double>("onset").at(0);
    EXPECT_TRUE(onset == motif.onset.value || (std::isnan(onset) && std::isnan(motif.onset.value)));
  }
  const auto idle = file.read<std::int32_t>("dissociation/idle");
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(file.read<double>("dissociation/rank_correlation").at(i),
              findings.dissociation[i].of(MassKind::alpha).rank_correlation);
    EXPECT_EQ(file.read<std::int32_t>("dissociation/largest_mass").at(i), findings.dissociation[i].largest_mass);
    for (int slice : findings.dissociation[i].of(MassKind::alpha).idle)
      EXPECT_EQ(idle[i * 18 + static_cast<std::size_t>(slice)], 1);
    EXPECT_EQ(file.read<double>("content/mean_share").at(i), findings.content[i].mean_share);
  }
}

}  // namespace
}  // namespace routescope::analysis
