// analysis.h5 gives back what was put in, says what it holds, and refuses what does not belong into it.
#include "analysis/record.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "analysis/run_probe.h"
#include "analysis/tables.h"
#include "data/command_line.h"
#include "data/error.h"
#include "data/hdf5.h"
#include "tests/analysis/micro_run.h"
#include "tests/data/full_disk.h"
#include "tests/data/temp_dir.h"

namespace routescope {
namespace {

using testing::make_run;
using testing::micro_config;
using testing::micro_model;
using testing::micro_tokens;

const std::unique_ptr<Communicator> alone = single_communicator();

ModelConfig routed() {
  return micro_config(Residual::block_attn_res, AttnResSource::block_sum);
}

AnalysisRecord record_of(const Model& model, const std::vector<std::int64_t>& steps) {
  AnalysisRecord record;
  record.identity = {micro_tokens(4, 8), {.seed = 9}, {}, model.config().to_json().dump()};
  for (std::int64_t step : steps) {
    ProbeRow row = probe(model, record.identity.tokens, {.settings = {.seed = 9}, .step = step});
    row.model_sha256 = "digest of step " + std::to_string(step);
    record.put(std::move(row));
  }
  return record;
}

/// The same numbers; NaN equals NaN.
void expect_equal(const std::vector<double>& a, const std::vector<double>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) << i;
}

void expect_equal(const ProbeRow& a, const ProbeRow& b) {
  EXPECT_EQ(a.step, b.step);
  EXPECT_EQ(a.model_sha256, b.model_sha256);
  EXPECT_EQ(a.intact_nll, b.intact_nll);
  expect_equal(a.mass, b.mass);
  expect_equal(a.intact_nll_sequence, b.intact_nll_sequence);
  for (auto member : {&AblationEffects::delta_nll_sequence, &AblationEffects::delta_nll, &AblationEffects::ci_lower,
                      &AblationEffects::ci_upper, &AblationEffects::p_value, &AblationEffects::p_adjusted,
                      &AblationEffects::kl, &AblationEffects::top1_agreement, &AblationEffects::coverage}) {
    expect_equal(a.effects(Ablation::mask).*member, b.effects(Ablation::mask).*member);
  }
}

template <class Body>
std::string error_of(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(AnalysisRecordTest, RoundTripKeepsEveryNumber) {
  const TempDir dir;
  AnalysisRecord record = record_of(micro_model(routed()), {4, 0, 2});
  record.save(dir / "analysis.h5");
  const AnalysisRecord back = AnalysisRecord::load(dir / "analysis.h5");
  ASSERT_EQ(back.rows.size(), 3U);
  EXPECT_EQ(back.rows[0].step, 0);
  EXPECT_EQ(back.rows[2].step, 4);
  for (std::size_t i = 0; i < 3; ++i) expect_equal(record.rows[i], back.rows[i]);
  EXPECT_EQ(back.identity.tokens.ids, record.identity.tokens.ids);
  EXPECT_EQ(back.identity.tokens.origin, record.identity.tokens.origin);
  EXPECT_EQ(back.identity.settings.seed, 9U);
  EXPECT_EQ(back.identity.model_config, record.identity.model_config);
  EXPECT_EQ(back.created, record.created);
}

TEST(AnalysisRecordTest, StatesShapesLabelsAndEstimands) {
  const TempDir dir;
  AnalysisRecord record = record_of(micro_model(routed()), {0, 1});
  record.save(dir / "analysis.h5");
  const hdf5::File file = hdf5::File::open(dir / "analysis.h5");
  EXPECT_EQ(file.text("filetype"), "routescope analysis");
  EXPECT_EQ(file.integers("version"), (std::vector<std::int64_t>{1, 0}));
  EXPECT_EQ(file.text("routescope_version"), routescope_version());
  const auto shape = [&](const char* path) { return file.dataset(path).shape(); };
  EXPECT_EQ(shape("step"), hdf5::Shape{2});
  EXPECT_EQ(shape("mass"), (hdf5::Shape{2, 18}));
  EXPECT_EQ(shape("mask/delta_nll"), (hdf5::Shape{2, 18}));
  EXPECT_EQ(shape("mask/delta_nll_ci"), (hdf5::Shape{2, 18, 2}));
  EXPECT_EQ(shape("mask/delta_nll_sequence"), (hdf5::Shape{2, 18, 4}));
  EXPECT_EQ(shape("intact/nll_sequence"), (hdf5::Shape{2, 4}));
  const auto family = file.read_text("family"), sublayer = file.read_text("sublayer"), depth = file.read_text("depth");
  for (std::size_t s = 0; s < num_slices; ++s) EXPECT_EQ(family[s] + "." + sublayer[s] + "." + depth[s], slice_name(s));

  const hdf5::Group mask = file.group("mask"), intact = file.group("intact");
  const hdf5::Dataset mass = file.dataset("mass");
  for (const hdf5::Object* object : {static_cast<const hdf5::Object*>(&mask), static_cast<const hdf5::Object*>(&intact),
                                     static_cast<const hdf5::Object*>(&mass)}) {
    EXPECT_NE(object->text("input_distribution").find("4 sequences of 8 tokens"), std::string::npos);
    EXPECT_FALSE(object->text("intervention").empty());
    EXPECT_FALSE(object->text("metric").empty());
    EXPECT_FALSE(object->text("unit").empty());
    EXPECT_EQ(object->integer("n"), 4);
    EXPECT_EQ(object->integer("seed"), 9);
  }
  for (const char* field : {"delta_nll", "delta_nll_ci", "p_value", "p_adjusted", "kl", "top1_agreement", "coverage"}) {
    EXPECT_FALSE(mask.dataset(field).text("units").empty()) << field;
    EXPECT_FALSE(mask.dataset(field).text("description").empty()) << field;
  }
}

TEST(AnalysisRecordTest, RefusesOtherFilesAndNewerVersions) {
  const TempDir dir;
  AnalysisRecord record = record_of(micro_model(routed()), {0});
  record.save(dir / "analysis.h5");
  {
    hdf5::File file = hdf5::File::open_writable(dir / "analysis.h5");
    file.set("version", std::vector<std::int64_t>{1, 1});
  }
  EXPECT_NE(error_of([&] { AnalysisRecord::load(dir / "analysis.h5"); }).find("attribute version: found [1, 1]"),
            std::string::npos);
  {
    hdf5::File file = hdf5::File::create(dir / "other.h5");
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
    hdf5::File file = hdf5::File::open_writable(dir / "short.h5");
    file.remove("mass");
    file.write("mass", std::vector<double>(17, 0.5), {1, 17});
  }
  EXPECT_NE(
      error_of([&] { AnalysisRecord::load(dir / "short.h5"); }).find("/mass: found shape [1, 17], expected [1, 18]"),
      std::string::npos);
}

TEST(AnalysisRecordTest, AFullDiskLeavesTheFileAsItWas) {
  const TempDir dir;
  const auto file = dir / "analysis.h5";
  AnalysisRecord record = record_of(micro_model(routed()), {0, 1});
  record.save(file);
  const std::string before = sha256_file(file);
  record.rows[1].intact_nll = 1;
  for (rlim_t bytes : {0, 500, 5000, 20000}) {
    const std::string said = on_full_disk(bytes, [&] {
      record.save(file);
      return std::string("saved");
    });
    EXPECT_NE(said.find("analysis.h5: cannot "), std::string::npos) << bytes << " bytes: " << said;
    EXPECT_EQ(sha256_file(file), before);
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1)
        << "debris at " << bytes << " bytes";
  }
}

TEST(AnalysisRecordTest, RefusesRowsMeasuredOtherwise) {
  const TempDir dir;
  const auto file = dir / "analysis.h5";
  AnalysisRecord record = record_of(micro_model(routed()), {0});
  record.save(file);
  EXPECT_EQ(open_record(file, record.identity).rows.size(), 1U);
  EXPECT_TRUE(open_record(dir / "absent.h5", record.identity).rows.empty());

  ProbeIdentity other = record.identity;
  other.settings.seed = 10;
  EXPECT_NE(error_of([&] { open_record(file, other); }).find("was probed with seed 9, now 10"), std::string::npos);
  other = record.identity;
  ++other.tokens.ids.back();
  EXPECT_NE(error_of([&] { open_record(file, other); }).find("was probed on other tokens"), std::string::npos);
  other = record.identity;
  other.tokens = record.identity.tokens.first(3);
  EXPECT_NE(error_of([&] { open_record(file, other); }).find("was probed on 4 sequences of 8 tokens, now 3 of 8"),
            std::string::npos);
  other = record.identity;
  other.model_config = "{}";
  EXPECT_NE(error_of([&] { open_record(file, other); }).find("another model"), std::string::npos);
}

TEST(RecordedProbeTest, ProbesWhatIsNewAndNothingElse) {
  const TempDir dir;
  make_run(dir / "run", routed(), {0, 1});
  const auto file = dir / "run" / "analysis.h5";
  const auto checkpoint = [&](std::int64_t step) { return checkpoint_dir(dir / "run", step); };
  const ProbeIdentity identity = identify({}, checkpoint(0), dir / "run");
  EXPECT_EQ(identity.tokens.sequences, 6);
  {
    RecordedProbe probe(file, identity, {}, *alone);
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
  RecordedProbe probe(file, identity, {}, *alone);
  EXPECT_EQ(probe.row(0, checkpoint(0)).intact_nll, 123);
  EXPECT_FALSE(probe.has(1));
  probe.row(1, checkpoint(1));
  const AnalysisRecord second = AnalysisRecord::load(file);
  ASSERT_EQ(second.rows.size(), 2U);
  EXPECT_EQ(second.rows[0].intact_nll, 123);
  EXPECT_EQ(second.rows[1].model_sha256, sha256_file(checkpoint(1) / "model.safetensors"));
  EXPECT_NE(second.rows[1].intact_nll, first.rows[0].intact_nll);
  EXPECT_EQ(second.created, first.created);

  // Nothing but the record itself lies in the run directory now.
  for (const auto& entry : std::filesystem::directory_iterator(dir / "run")) {
    EXPECT_EQ(entry.path().filename().string().find(".partial"), std::string::npos);
  }
}

TEST(RecordedProbeTest, RefusesOtherWeightsUnderAKnownStep) {
  const TempDir dir;
  make_run(dir / "run", routed(), {0, 1});
  const auto file = dir / "run" / "analysis.h5";
  const auto zero = checkpoint_dir(dir / "run", 0), one = checkpoint_dir(dir / "run", 1);
  RecordedProbe probe(file, identify({}, zero, dir / "run"), {}, *alone);
  probe.row(0, zero);
  EXPECT_NE(error_of([&] { probe.row(0, one); }).find("step 0 was probed on other weights"), std::string::npos);
}

TEST(RecordedProbeTest, RefusesADamagedCheckpointAndKeepsTheRecord) {
  const TempDir dir;
  make_run(dir / "run", routed(), {0, 1});
  const auto file = dir / "run" / "analysis.h5";
  const auto zero = checkpoint_dir(dir / "run", 0), one = checkpoint_dir(dir / "run", 1);
  RecordedProbe probe(file, identify({}, zero, dir / "run"), {}, *alone);
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
  const TempDir dir;
  make_run(dir / "run", routed(), {0});
  EXPECT_EQ(planned_steps(dir / "run"), 4);
  write_text_atomically(dir / "run" / "config.yaml", "train: {tokens_per_step: 64}\n");
  EXPECT_NE(error_of([&] { planned_steps(dir / "run"); }).find("key train.steps: found nothing"), std::string::npos);
  write_text_atomically(dir / "run" / "config.yaml", "train: {steps: many}\n");
  EXPECT_NE(error_of([&] { planned_steps(dir / "run"); }).find("config.yaml: key train.steps"), std::string::npos);
}

}  // namespace
}  // namespace routescope
