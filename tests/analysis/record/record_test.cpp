// analysis.h5 gives back what was put in, says what it holds, and refuses what does not belong into it.
#include "analysis/record/record.h"

#include <gtest/gtest.h>
#include <hdf5_hl.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "analysis/commands/tables.h"
#include "analysis/findings/findings.h"
#include "analysis/record/run_probe.h"
#include "data/base/build.h"
#include "data/base/command_line.h"
#include "data/base/error.h"
#include "data/hdf5/file.h"
#include "tests/analysis/probe/micro_run.h"
#include "tests/analysis/record/filled_record.h"
#include "tests/data/base/full_disk.h"
#include "tests/data/base/temp_dir.h"

namespace routescope::analysis {
namespace {

using testing::filled_record;
using testing::full_identity;
using testing::make_run;
using testing::micro_config;
using testing::micro_tokens;

const std::unique_ptr<kernels::Communicator> alone = kernels::single_communicator();

model::ModelConfig routed() {
  return testing::micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum);
}

template <class Body>
std::string error_of(const Body& body) {
  try {
    body();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "no error";
}

bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(AnalysisRecordTest, RoundTripKeepsEveryBitOfEveryField) {
  const data::TempDir dir;
  AnalysisRecord record = testing::filled_record();
  record.rows[0].mass[3] = -std::numeric_limits<double>::infinity();
  record.save(dir / "analysis.h5");
  const AnalysisRecord back = AnalysisRecord::load(dir / "analysis.h5");
  ASSERT_EQ(back.rows.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(testing::text_of(record.rows[i]), testing::text_of(back.rows[i])) << i;
  EXPECT_EQ(back.rows[0].step, 0);
  EXPECT_EQ(back.rows[2].step, 4);
  EXPECT_TRUE(back.rows[0].atlas.empty());
  EXPECT_EQ(back.rows[1].atlas.checked.size(), 3U);
  const ProbeIdentity &was = record.identity, &is = back.identity;
  EXPECT_EQ(is.tokens.ids, was.tokens.ids);
  EXPECT_EQ(is.tokens.origin, was.tokens.origin);
  EXPECT_EQ(is.patch.ids, was.patch.ids);
  EXPECT_EQ(is.patch.origin, was.patch.origin);
  EXPECT_EQ(is.settings, was.settings);
  EXPECT_EQ(is.sets, was.sets);
  EXPECT_EQ(is.model_config, was.model_config);
  ASSERT_EQ(is.classes.size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(is.classes[i].name, was.classes[i].name);
    EXPECT_EQ(is.classes[i].labels, was.classes[i].labels);
    EXPECT_EQ(is.classes[i].of_token, was.classes[i].of_token);
  }
  EXPECT_EQ(back.created, record.created);
}

TEST(AnalysisRecordTest, WhatWasNotMeasuredIsNaN) {
  const data::TempDir dir;
  AnalysisRecord record = testing::filled_record();
  record.rows[1].intact_nll_sequence.clear();
  record.rows[1].ablations[2] = {};
  record.rows[1].ablations[2].ablation = Ablation::mean;
  // What the findings are made of stays: they ask for it.
  record.save(dir / "analysis.h5");
  const AnalysisRecord back = AnalysisRecord::load(dir / "analysis.h5");
  const auto all_nan = [](const std::vector<double>& values, std::size_t size) {
    return values.size() == size && std::all_of(values.begin(), values.end(), [](double v) { return std::isnan(v); });
  };
  EXPECT_TRUE(all_nan(back.rows[1].intact_nll_sequence, 4));
  EXPECT_TRUE(all_nan(back.rows[1].effects(Ablation::mean).delta_nll(), 18));
  EXPECT_TRUE(all_nan(back.rows[1].effects(Ablation::mean).sets[17].control.delta_nll_sequence, 4));
  EXPECT_EQ(back.rows[0].effects(Ablation::mean).sets[3].kl, record.rows[0].effects(Ablation::mean).sets[3].kl);

  record.rows[1].ablations[1].sets.pop_back();
  EXPECT_TRUE(holds(error_of([&] { record.save(dir / "analysis.h5"); }),
                    "zero/delta_nll of step 1: found 17 values, expected 18"));
}

TEST(AnalysisRecordTest, EveryDatasetIsLabelledAndEveryResultStatesItsEstimand) {
  const data::TempDir dir;
  AnalysisRecord record = testing::filled_record();
  record.save(dir / "analysis.h5");
  const data::hdf5::File file = data::hdf5::File::open(dir / "analysis.h5");
  EXPECT_EQ(file.text("filetype"), "routescope analysis");
  EXPECT_EQ(file.integers("version"), (std::vector<std::int64_t>{2, 0}));
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
  for (const char* name : {"mass", "mass_sequence", "alpha_mean", "alpha_variance", "closed_form_error"})
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
    EXPECT_EQ(control.integer("draws"), 4);
  }
  record.identity.settings.until_decided = true;
  record.save(dir / "decided.h5");
  const data::hdf5::File decided = data::hdf5::File::open(dir / "decided.h5");
  EXPECT_TRUE(holds(decided.group("mask").text("stopping_rule"), "every 8 sequences"));
  EXPECT_TRUE(holds(decided.group("mask").text("interval"), "confidence sequence"));
}

TEST(AnalysisRecordTest, LabelsSaySlicesAndRoutes) {
  const data::TempDir dir;
  AnalysisRecord record = testing::filled_record();
  record.save(dir / "analysis.h5");
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
  record.save(dir / "sets.h5");
  EXPECT_FALSE(data::hdf5::File::open(dir / "sets.h5").exists("family"));
  EXPECT_EQ(AnalysisRecord::load(dir / "sets.h5").identity.sets, record.identity.sets);
}

TEST(AnalysisRecordTest, FindingsStandInTheFile) {
  const data::TempDir dir;
  AnalysisRecord record = testing::filled_record();
  record.save(dir / "analysis.h5");
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
              findings.dissociation[i].rank_correlation.value);
    EXPECT_EQ(file.read<std::int32_t>("dissociation/largest_mass").at(i), findings.dissociation[i].largest_mass);
    for (int slice : findings.dissociation[i].idle) EXPECT_EQ(idle[i * 18 + static_cast<std::size_t>(slice)], 1);
    EXPECT_EQ(file.read<double>("content/mean_share").at(i), findings.content[i].mean_share);
  }
}

TEST(AnalysisRecordTest, RefusesOtherFilesAndNewerVersions) {
  const data::TempDir dir;
  AnalysisRecord record = testing::filled_record();
  record.save(dir / "analysis.h5");
  {
    data::hdf5::File file = data::hdf5::File::open_writable(dir / "analysis.h5");
    file.set("version", std::vector<std::int64_t>{2, 1});
  }
  EXPECT_NE(error_of([&] {
              AnalysisRecord::load(dir / "analysis.h5");
            }).find("attribute version: found [2, 1], expected [2, 0] to [2, 0]"),
            std::string::npos);
  {
    data::hdf5::File file = data::hdf5::File::open_writable(dir / "analysis.h5");
    file.set("version", std::vector<std::int64_t>{1, 0});
  }
  EXPECT_TRUE(holds(error_of([&] { AnalysisRecord::load(dir / "analysis.h5"); }),
                    "found [1, 0], expected [2, 0] to [2, 0]: an older version measured less: remove the file"));
  {
    data::hdf5::File file = data::hdf5::File::create(dir / "other.h5");
    file.set("filetype", "something else");
  }
  EXPECT_NE(error_of([&] {
              AnalysisRecord::load(dir / "other.h5");
            }).find("found 'something else', expected 'routescope analysis'"),
            std::string::npos);
  std::ofstream(dir / "text.h5") << "not HDF5";
  EXPECT_NE(error_of([&] { AnalysisRecord::load(dir / "text.h5"); }).find("text.h5"), std::string::npos);
  // One column too few.
  record.save(dir / "short.h5");
  {
    data::hdf5::File file = data::hdf5::File::open_writable(dir / "short.h5");
    file.remove("mass");
    file.write("mass", std::vector<double>(3 * 17, 0.5), {3, 17});
  }
  EXPECT_NE(
      error_of([&] { AnalysisRecord::load(dir / "short.h5"); }).find("/mass: found shape [3, 17], expected [3, 18]"),
      std::string::npos);
  {
    data::hdf5::File file = data::hdf5::File::open_writable(dir / "short.h5");
    file.remove("mask/kl");
    file.remove("mass");
  }
  EXPECT_TRUE(holds(error_of([&] { AnalysisRecord::load(dir / "short.h5"); }), "/mass: no such dataset"));
  record.save(dir / "settings.h5");
  {
    data::hdf5::File file = data::hdf5::File::open_writable(dir / "settings.h5");
    file.set("settings", R"({"seed": 1})");
  }
  EXPECT_TRUE(holds(error_of([&] { AnalysisRecord::load(dir / "settings.h5"); }),
                    "settings.h5: attribute settings: key ablations"));
}

TEST(AnalysisRecordTest, AFullDiskLeavesTheFileAsItWas) {
  const data::TempDir dir;
  const auto file = dir / "analysis.h5";
  AnalysisRecord record = testing::filled_record();
  record.save(file);
  const std::string before = data::sha256_file(file);
  record.rows[1].intact_nll = 1;
  for (rlim_t bytes : {0, 500, 5000, 20000}) {
    const std::string said = data::on_full_disk(bytes, [&] {
      record.save(file);
      return std::string("saved");
    });
    EXPECT_NE(said.find("analysis.h5: cannot "), std::string::npos) << bytes << " bytes: " << said;
    EXPECT_EQ(data::sha256_file(file), before);
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1)
        << "debris at " << bytes << " bytes";
  }
}

TEST(AnalysisRecordTest, RefusesRowsMeasuredOtherwise) {
  const data::TempDir dir;
  const auto file = dir / "analysis.h5";
  AnalysisRecord record = testing::filled_record();
  record.save(file);
  EXPECT_EQ(open_record(file, record.identity).rows.size(), 3U);
  EXPECT_TRUE(open_record(dir / "absent.h5", record.identity).rows.empty());

  const auto refused = [&](const auto& change) {
    ProbeIdentity other = record.identity;
    change(other);
    const std::string said = error_of([&] { open_record(file, other); });
    EXPECT_TRUE(said.starts_with(file.string() + ": ")) << said;
    EXPECT_TRUE(holds(said, ": name another file with --out, or remove this one")) << said;
    return said;
  };
  const auto of_settings = [&](const auto& change) {
    return refused([&](ProbeIdentity& other) { change(other.settings); });
  };
  EXPECT_TRUE(holds(of_settings([](auto& s) { s.seed = 10; }), "attribute settings: seed: found 9, expected 10"));
  EXPECT_TRUE(
      holds(of_settings([](auto& s) { s.ablations.pop_back(); }),
            R"(ablations: found ["mask","zero","mean","resample","freeze","patch"], expected ["mask","zero",)"));
  EXPECT_TRUE(holds(of_settings([](auto& s) { s.sets = {"all"}; }), R"(sets: found [], expected ["all"])"));
  EXPECT_TRUE(holds(of_settings([](auto& s) { s.controls = 2; }), "controls: found 4, expected 2"));
  EXPECT_TRUE(holds(of_settings([](auto& s) { s.margin = 0.5; }), "margin: found 0.01, expected 0.5"));
  EXPECT_TRUE(holds(of_settings([](auto& s) { s.until_decided = true; }), "until_decided: found false, expected true"));
  EXPECT_TRUE(holds(of_settings([](auto& s) { s.look_every = 9; }), "look_every: found 8, expected 9"));
  EXPECT_TRUE(holds(of_settings([](auto& s) { s.by_position = true; }), "by_position: found false, expected true"));
  EXPECT_TRUE(holds(of_settings([](auto& s) { s.by_repeat = false; }), "by_repeat: found true, expected false"));
  EXPECT_TRUE(holds(refused([](auto& i) { ++i.tokens.ids.back(); }), "/probe_tokens: found other tokens (random ids"));
  EXPECT_TRUE(holds(refused([](auto& i) { i.tokens = i.tokens.first(3); }),
                    "/probe_tokens: found 4 sequences of 8 tokens, expected 3 of 8"));
  EXPECT_TRUE(holds(refused([](auto& i) { ++i.patch.ids.front(); }), "/patch_tokens: found other tokens"));
  EXPECT_TRUE(
      holds(refused([](auto& i) { i.patch = {}; }), "/patch_tokens: found 4 sequences of 8 tokens, expected 0"));
  EXPECT_TRUE(holds(refused([](auto& i) { i.classes.pop_back(); }), "token classes: found class, expected none"));
  EXPECT_TRUE(
      holds(refused([](auto& i) { i.classes[1].labels[0] = "z"; }), "found class (a, b, c), expected class (z, b, c)"));
  EXPECT_TRUE(holds(refused([](auto& i) { i.classes[0].of_token[5] = -1; }), "found other tokens in repeat"));
  EXPECT_TRUE(holds(refused([](auto& i) { i.model_config = "{}"; }), "attribute model_config: found {"));
  EXPECT_TRUE(holds(refused([](auto& i) { i.sets[0] = "x"; }), "/slice: found embedding.attn.early"));
  // The same classes from a file of another name are the same.
  ProbeIdentity moved = record.identity;
  moved.settings.class_file = "elsewhere.json";
  EXPECT_EQ(open_record(file, moved).rows.size(), 3U);
}

TEST(AnalysisRecordTest, TablesFitATerminal) {
  AnalysisRecord record = testing::filled_record();
  const std::string findings = findings_text(find(record), record);  // which other sets than the slices have not
  record.identity.sets[0] = "0.attn-5.mlp:embedding,block_1,block_2,block_3,current";
  for (ProbeRow& row : record.rows) {
    for (AblationEffects& effects : row.ablations) effects.sets[1].delta_nll = {};
  }
  record.rows.back().step = 123456789;
  std::string text = emergence_table(record) + findings;
  for (const ProbeRow& row : record.rows)
    text += row_table(row, record.identity) + step_line(row, record.identity) + "\n";
  std::istringstream lines(text);
  std::size_t count = 0;
  for (std::string line; std::getline(lines, line); ++count) EXPECT_LE(line.size(), 120U) << line;
  EXPECT_GT(count, 3U * 6 * 19);
  for (const char* part : {"0.attn-5.mlp:embedd..", "motif embedding_early_mlp", "rank correlation",
                           "cost: ", "atlas: 5 routes checked", "freeze"})
    EXPECT_TRUE(holds(text, part)) << part;
}

TEST(RecordedProbeTest, ProbesWhatIsNewAndNothingElse) {
  const data::TempDir dir;
  testing::make_run(dir / "run", routed(), {0, 1});
  const auto file = dir / "run" / "analysis.h5";
  const auto checkpoint = [&](std::int64_t step) { return data::checkpoint_dir(dir / "run", step); };
  const ProbeIdentity identity = identify({}, checkpoint(0), dir / "run");
  EXPECT_EQ(identity.tokens.sequences, 6);
  {
    RecordedProbe probe(file, {}, identity, {}, *alone);
    probe.row(0, checkpoint(0));
  }
  const AnalysisRecord first = AnalysisRecord::load(file);
  ASSERT_EQ(first.rows.size(), 1U);
  {
    // A number that no probe yields shows whether the row was computed again.
    AnalysisRecord marked = first;
    marked.rows[0].intact_nll = 123;
    marked.save(file);
  }
  RecordedProbe probe(file, {}, identity, {}, *alone);
  EXPECT_EQ(probe.row(0, checkpoint(0)).intact_nll, 123);
  EXPECT_FALSE(probe.has(1));
  probe.row(1, checkpoint(1));
  const AnalysisRecord second = AnalysisRecord::load(file);
  ASSERT_EQ(second.rows.size(), 2U);
  EXPECT_EQ(second.rows[0].intact_nll, 123);
  EXPECT_EQ(second.rows[1].model_sha256, data::sha256_file(checkpoint(1) / "model.safetensors"));
  EXPECT_NE(second.rows[1].intact_nll, first.rows[0].intact_nll);
  EXPECT_EQ(second.created, first.created);

  // Nothing but the record itself lies in the run directory now.
  for (const auto& entry : std::filesystem::directory_iterator(dir / "run")) {
    EXPECT_EQ(entry.path().filename().string().find(".partial"), std::string::npos);
  }
}

TEST(RecordedProbeTest, RefusesOtherWeightsUnderAKnownStep) {
  const data::TempDir dir;
  testing::make_run(dir / "run", routed(), {0, 1});
  const auto file = dir / "run" / "analysis.h5";
  const auto zero = data::checkpoint_dir(dir / "run", 0), one = data::checkpoint_dir(dir / "run", 1);
  RecordedProbe probe(file, {}, identify({}, zero, dir / "run"), {}, *alone);
  probe.row(0, zero);
  EXPECT_NE(error_of([&] { probe.row(0, one); }).find("step 0 was probed on other weights"), std::string::npos);
  EXPECT_FALSE(probe.is_of(0, one));
  EXPECT_TRUE(probe.is_of(0, zero));
  EXPECT_TRUE(probe.is_of(1, one)) << "nothing is recorded that could be of other weights";
  EXPECT_EQ(probe.row(0, one, OtherWeights::probe_again).model_sha256, data::sha256_file(one / "model.safetensors"));
  EXPECT_EQ(AnalysisRecord::load(file).rows.size(), 1U);
}

TEST(RecordedProbeTest, AnAtlasIsAddedToARowThatLacksIt) {
  const data::TempDir dir;
  testing::make_run(dir / "run", routed(), {0, 1});
  const auto file = dir / "run" / "analysis.h5";
  const auto one = data::checkpoint_dir(dir / "run", 1);
  const ProbeIdentity identity = identify({}, one, dir / "run");
  RecordedProbe(file, {}, identity, {}, *alone).row(1, one);
  AnalysisRecord marked = AnalysisRecord::load(file);
  EXPECT_TRUE(marked.rows[0].atlas.empty());
  marked.rows[0].intact_nll = 123;  // shows whether the rest was measured again
  marked.save(file);
  ProbeRequest request;
  request.atlas = true;
  request.atlas_checks = 4;
  RecordedProbe probe(file, request, identity, {}, *alone);
  EXPECT_FALSE(probe.has(1));
  probe.row(1, one);
  EXPECT_TRUE(probe.has(1));
  const AnalysisRecord after = AnalysisRecord::load(file);
  ASSERT_EQ(after.rows.size(), 1U);
  EXPECT_EQ(after.rows[0].intact_nll, 123);
  EXPECT_EQ(after.rows[0].atlas.checked.size(), 4U);
}

TEST(RecordedProbeTest, RefusesADamagedCheckpointAndKeepsTheRecord) {
  const data::TempDir dir;
  testing::make_run(dir / "run", routed(), {0, 1});
  const auto file = dir / "run" / "analysis.h5";
  const auto zero = data::checkpoint_dir(dir / "run", 0), one = data::checkpoint_dir(dir / "run", 1);
  RecordedProbe probe(file, {}, identify({}, zero, dir / "run"), {}, *alone);
  probe.row(0, zero);
  {
    std::fstream weights(one / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
    weights.seekg(-9, std::ios::end);
    const char byte = static_cast<char>(weights.get() ^ 1);
    weights.seekp(-9, std::ios::end);
    weights.put(byte);
  }
  EXPECT_NE(error_of([&] { probe.row(1, one); }).find("model.safetensors: SHA-256"), std::string::npos);
  EXPECT_EQ(AnalysisRecord::load(file).rows.size(), 1U);
}

TEST(RecordedProbeTest, PlannedStepsComeFromTheConfiguration) {
  const data::TempDir dir;
  testing::make_run(dir / "run", routed(), {0});
  EXPECT_EQ(planned_steps(dir / "run"), 4);
  data::write_text_atomically(dir / "run" / "config.yaml", "train: {tokens_per_step: 64}\n");
  EXPECT_NE(error_of([&] { planned_steps(dir / "run"); }).find("key train.steps: found nothing"), std::string::npos);
  data::write_text_atomically(dir / "run" / "config.yaml", "train: {steps: many}\n");
  EXPECT_NE(error_of([&] { planned_steps(dir / "run"); }).find("config.yaml: key train.steps"), std::string::npos);
}

}  // namespace
}  // namespace routescope::analysis
