// A step is probed once: recorded rows stay, new ones are added, and other weights are refused.
#include "analysis/record/run_probe.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "analysis/probe/atlas.h"
#include "data/base/files.h"
#include "data/base/sha256.h"
#include "model/files/rounded_weights.h"
#include "tests/analysis/probe/micro_run.h"
#include "tests/data/base/expect_error.h"
#include "tests/data/base/temp_dir.h"

namespace routescope::analysis {
namespace {

using data::error_of;

const std::unique_ptr<kernels::Communicator> alone = kernels::single_communicator();

model::ModelConfig routed() {
  return testing::micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum);
}

TEST(RecordedProbeTest, ProbesWhatIsNewAndNothingElse) {
  const data::TempDir dir;
  testing::make_run(dir / "run", routed(), {0, 1});
  const auto file = dir / "run" / "analysis.h5";
  const auto checkpoint = [&](std::int64_t step) { return data::checkpoint_dir(dir / "run", step); };
  const ProbeIdentity identity = identify({}, checkpoint(0), dir / "run");
  EXPECT_EQ(identity.tokens.sequences, 6);
  {
    RecordedProbe probe(file, identity, {}, *alone);
    probe.row(0, checkpoint(0));
  }
  const AnalysisRecord first = load_record(file);
  ASSERT_EQ(first.rows.size(), 1U);
  {
    // A number that no probe yields shows whether the row was computed again.
    AnalysisRecord marked = first;
    marked.rows[0].intact_nll = 123;
    save_record(marked, file);
  }
  RecordedProbe probe(file, identity, {}, *alone);
  EXPECT_EQ(probe.row(0, checkpoint(0)).intact_nll, 123);
  EXPECT_FALSE(probe.has(1));
  probe.row(1, checkpoint(1));
  const AnalysisRecord second = load_record(file);
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
  RecordedProbe probe(file, identify({}, zero, dir / "run"), {}, *alone);
  probe.row(0, zero);
  EXPECT_NE(error_of([&] { probe.row(0, one); }).find("step 0 was probed on other weights"), std::string::npos);
  EXPECT_FALSE(probe.is_of(0, one));
  EXPECT_TRUE(probe.is_of(0, zero));
  EXPECT_TRUE(probe.is_of(1, one)) << "nothing is recorded that could be of other weights";
  EXPECT_EQ(probe.row(0, one, OtherWeights::probe_again).model_sha256, data::sha256_file(one / "model.safetensors"));
  EXPECT_EQ(load_record(file).rows.size(), 1U);
}

TEST(RecordedProbeTest, TheStateOfTheRunIsNotReadAndMayGo) {
  const data::TempDir dir;
  testing::make_run(dir / "run", routed(), {0, 1});
  const auto file = dir / "run" / "analysis.h5";
  const auto zero = data::checkpoint_dir(dir / "run", 0), one = data::checkpoint_dir(dir / "run", 1);
  // As checkpoint.keep_state removes it: after the manifest was read, and before a second probe.
  std::ofstream(one / "train_state.safetensors") << "a state";
  data::write_manifest(one);
  std::filesystem::remove(one / "train_state.safetensors");
  const ProbeIdentity identity = identify({}, zero, dir / "run");
  RecordedProbe(file, identity, {}, *alone).row(1, one);
  data::write_manifest(one);
  RecordedProbe probe(file, identity, {}, *alone);
  EXPECT_TRUE(probe.is_of(1, one) && probe.has(1)) << "the weights are the same";
  // The weights are read, and verified.
  std::fstream stream(zero / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  stream.seekp(-1, std::ios::end);
  stream.put('x');
  stream.close();
  EXPECT_NE(error_of([&] { probe.row(0, zero); }).find("model.safetensors: SHA-256"), std::string::npos);
}

// As checkpoint.weights_dtype rounds them, between two probes.
TEST(RecordedProbeTest, RoundedWeightsAreOfTheStepThatWasProbed) {
  const data::TempDir dir;
  testing::make_run(dir / "run", routed(), {0, 1});
  const auto file = dir / "run" / "analysis.h5";
  const auto zero = data::checkpoint_dir(dir / "run", 0), one = data::checkpoint_dir(dir / "run", 1);
  ProbeIdentity identity = identify({}, zero, dir / "run");
  RecordedProbe probe(file, identity, {}, *alone);
  const ProbeRow before = probe.row(1, one);
  for (const std::filesystem::path& checkpoint : {zero, one}) {
    const std::filesystem::path weights = checkpoint / "model.safetensors", rounded = checkpoint / "rounded";
    const std::string sha256 = data::sha256_file(weights);
    model::write_rounded_weights(weights, {"model.safetensors", std::filesystem::file_size(weights), sha256}, rounded);
    std::filesystem::rename(rounded, weights);
    data::write_manifest(checkpoint);
  }
  EXPECT_TRUE(probe.is_of(1, one));
  EXPECT_EQ(probe.row(1, one).model_sha256, before.model_sha256) << "it is not probed again";
  // Of other weights it is not, rounded or not.
  EXPECT_FALSE(is_of_weights(before.model_sha256, zero));
  // A step that was not probed before: the row names the rounded file.
  const ProbeRow& after = probe.row(0, zero);
  EXPECT_EQ(after.model_sha256, data::sha256_file(zero / "model.safetensors"));
  EXPECT_TRUE(std::isfinite(after.intact_nll));
  // What is to be added to a row of the weights as they were cannot be measured on rounded ones.
  identity.settings.writers = true;
  RecordedProbe writers(file, identity, {}, *alone);
  EXPECT_NE(error_of([&] { writers.row(1, one); }).find("step 1 was probed on other weights"), std::string::npos);
  EXPECT_EQ(writers.row(1, one, OtherWeights::probe_again).model_sha256, data::sha256_file(one / "model.safetensors"));
}

TEST(RecordedProbeTest, AnAtlasIsAddedToARowThatLacksIt) {
  const data::TempDir dir;
  testing::make_run(dir / "run", routed(), {0, 1});
  const auto file = dir / "run" / "analysis.h5";
  const auto one = data::checkpoint_dir(dir / "run", 1);
  ProbeIdentity identity = identify({}, one, dir / "run");
  RecordedProbe(file, identity, {}, *alone).row(1, one);
  AnalysisRecord marked = load_record(file);
  EXPECT_TRUE(marked.rows[0].atlas.empty());
  marked.rows[0].intact_nll = 123;  // shows whether the rest was measured again
  save_record(marked, file);
  identity.settings.atlas = true;
  identity.settings.atlas_checks = 4;
  RecordedProbe probe(file, identity, {}, *alone);
  EXPECT_FALSE(probe.has(1));
  probe.row(1, one);
  EXPECT_TRUE(probe.has(1));
  const AnalysisRecord after = load_record(file);
  ASSERT_EQ(after.rows.size(), 1U);
  EXPECT_EQ(after.rows[0].intact_nll, 123);
  EXPECT_EQ(after.rows[0].atlas.random_checks(), 4U);

  // More true ablations replace it; fewer are there already.
  identity.settings.atlas_checks = most_atlas_checks;
  RecordedProbe exact(file, identity, {}, *alone);
  EXPECT_FALSE(exact.has(1));
  exact.row(1, one);
  EXPECT_TRUE(exact.has(1));
  EXPECT_TRUE(probe.has(1));
  const ProbeRow row = load_record(file).rows.at(0);
  EXPECT_EQ(row.intact_nll, 123);
  EXPECT_EQ(row.atlas.random_checks(), maskable_routes(identity.plan()).size());
}

TEST(RecordedProbeTest, WritersAreAddedToARowThatLacksThem) {
  const data::TempDir dir;
  testing::make_run(dir / "run", routed(), {0, 1});
  const auto file = dir / "run" / "analysis.h5";
  const auto one = data::checkpoint_dir(dir / "run", 1);
  ProbeIdentity identity = identify({}, one, dir / "run");
  RecordedProbe(file, identity, {}, *alone).row(1, one);
  AnalysisRecord marked = load_record(file);
  EXPECT_TRUE(marked.rows[0].writers.empty());
  marked.rows[0].intact_nll = 123;  // shows whether the rest was measured again
  save_record(marked, file);
  identity.settings.writers = true;
  RecordedProbe probe(file, identity, {}, *alone);
  EXPECT_FALSE(probe.has(1));
  probe.row(1, one);
  EXPECT_TRUE(probe.has(1));
  const AnalysisRecord after = load_record(file);
  ASSERT_EQ(after.rows.size(), 1U);
  EXPECT_EQ(after.rows[0].intact_nll, 123);
  EXPECT_EQ(after.rows[0].writers.zero.size(), identity.plan().reads.size());
  identity.settings.writers = false;
  EXPECT_TRUE(RecordedProbe(file, identity, {}, *alone).has(1)) << "they are no reason to measure anything again";
}

TEST(RecordedProbeTest, RefusesADamagedCheckpointAndKeepsTheRecord) {
  const data::TempDir dir;
  testing::make_run(dir / "run", routed(), {0, 1});
  const auto file = dir / "run" / "analysis.h5";
  const auto zero = data::checkpoint_dir(dir / "run", 0), one = data::checkpoint_dir(dir / "run", 1);
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
  EXPECT_EQ(load_record(file).rows.size(), 1U);
}

TEST(RecordedProbeTest, TasksHaveAFileOfTheirOwnWhichSaysWhatTheyAre) {
  const data::TempDir dir;
  testing::make_run(dir / "run", routed(), {0});
  const auto zero = data::checkpoint_dir(dir / "run", 0);
  const std::string task = (dir / "mine.v2.jsonl").string();
  std::string lines;
  for (int q = 0; q < 6; ++q)
    lines += fmt::format("{{\"clean\": [{}, 2, 3], \"corrupted\": [4, 5, {}], \"answer\": {}, \"distractor\": 30}}\n",
                         q, q, q + 7);
  data::write_text_atomically(task, lines);
  ProbeSettings settings{.ablations = {Ablation::mask, Ablation::patch}, .controls = 0, .task = task};
  const auto file = record_file(dir / "run", settings);
  EXPECT_EQ(file, dir / "run" / "task-mine.v2.h5");
  const ProbeIdentity identity = identify(settings, zero, dir / "run");
  RecordedProbe(file, identity, {}, *alone).row(0, zero);
  const AnalysisRecord record = load_record(file);
  EXPECT_EQ(record.identity.task.name, "mine.v2");
  EXPECT_EQ(record.identity.task.sha256, data::sha256_file(task));
  EXPECT_EQ(record.identity.tokens.answers, identity.tokens.answers);
  EXPECT_EQ(record.identity.tokens.documents, (std::vector<std::int64_t>{0, 1, 2, 3, 4, 5}));
  EXPECT_GT(record.rows[0].intact_metrics[1], 0);
  EXPECT_FALSE(std::isnan(record.rows[0].effects(Ablation::patch).sets[3].metrics[0].delta.value));

  settings.direction = Direction::denoising;
  EXPECT_EQ(record_file(dir / "run", settings), dir / "run" / "task-mine.v2-denoising.h5");
  const ProbeIdentity denoising = identify(settings, zero, dir / "run");
  EXPECT_NE(error_of([&] { open_record(file, denoising); }).find("/probe_tokens: found other tokens"),
            std::string::npos);
  ProbeIdentity others = identity;
  others.tokens.answers[2].distractor = 31;
  EXPECT_NE(error_of([&] { open_record(file, others); }).find("other answers"), std::string::npos);
  EXPECT_EQ(record_file(dir / "run", {}), dir / "run" / "analysis.h5");
}

TEST(RecordedProbeTest, RefusesTasksThatLackWhatIsAskedFor) {
  const data::TempDir dir;
  testing::make_run(dir / "run", routed(), {0});
  const auto zero = data::checkpoint_dir(dir / "run", 0);
  const std::string task = (dir / "bare.jsonl").string();
  data::write_text_atomically(task, "{\"clean\": [1, 2], \"answer\": 3}\n");
  const auto error = [&](const ProbeSettings& settings) {
    return error_of([&] { identify(settings, zero, dir / "run"); });
  };
  EXPECT_EQ(error({.task = task}), "no error");
  EXPECT_NE(error({.ablations = {Ablation::patch}, .task = task}).find("no corrupted prompts"), std::string::npos);
  EXPECT_NE(error({.task = task, .direction = Direction::denoising}).find("no corrupted prompts"), std::string::npos);
  EXPECT_NE(error({.direction = Direction::denoising}).find("--direction needs --task"), std::string::npos);
  EXPECT_NE(error({.tokens = "1,2", .task = task}).find("found --tokens beside it"), std::string::npos);
  EXPECT_NE(error({.patch_from = "1,2", .task = task}).find("found --patch-from beside it"), std::string::npos);
  EXPECT_NE(error({.task = (dir / "absent.jsonl").string()}).find("absent.jsonl"), std::string::npos);
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
