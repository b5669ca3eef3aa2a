// A run that is interrupted at any step and resumed ends in the same bits. It runs in this process, so that a test can
// choose the step.
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <functional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "data/base/error.h"
#include "data/base/files.h"
#include "data/base/manifest.h"
#include "data/records/routing_view.h"
#include "tests/train/run/micro_run.h"
#include "train/checkpoint/checkpoint_search.h"
#include "train/config/run_directory.h"

namespace routescope::train {
namespace {

namespace fs = std::filesystem;
using testing::checkpoint_names;
using testing::expect_same_run;
using testing::MicroRun;

class Resume : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    micro_ = new MicroRun;
    micro_->train("whole");
  }
  static void TearDownTestSuite() {
    delete micro_;
    micro_ = nullptr;
  }

  /// Runs up to `step` and ends there as in a crash: nothing is written after it. With checkpoints beside training
  /// (async on) the last one may be lost.
  static void crash_after(const std::string& run, std::int64_t step, const std::string& async = "off",
                          std::vector<std::string> overrides = {}) {
    struct Crash {};
    overrides.push_back("checkpoint.async=" + async);
    EXPECT_THROW(micro_->train(run, overrides, [step](std::int64_t at) { return at == step ? throw Crash() : 0; }),
                 Crash);
  }
  static std::string refusal(const std::string& run, const std::vector<std::string>& overrides) {
    try {
      micro_->train(run, overrides);
    } catch (const data::Error& error) {
      return error.what();
    }
    return "(not refused)";
  }
  static void flip_byte(const fs::path& file, std::streamoff at) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(at);
    const auto byte = static_cast<char>(stream.get() ^ 0x10);
    stream.seekp(at);
    stream.put(byte);
  }

  static MicroRun* micro_;
};
MicroRun* Resume::micro_ = nullptr;

TEST_F(Resume, ARunWritesAtTheStepsOfItsSchedules) {
  const fs::path dir = micro_->dir("whole");
  EXPECT_EQ(testing::checkpoint_names(dir),
            (std::vector<std::string>{"step-00000000", "step-00000001", "step-00000002", "step-00000004",
                                      "step-00000006", "step-00000009", "step-00000012"}));
  const data::RoutingRecordView record = data::RoutingRecordView::load(dir / "routing.h5");
  std::vector<std::int64_t> snapshots, valid;
  for (const data::RoutingSnapshot& row : record.snapshots) snapshots.push_back(row.step);
  for (const data::ValidRow& row : record.valid) valid.push_back(row.step);
  EXPECT_EQ(snapshots,
            (std::vector<std::int64_t>{0, 1, 2, 4, 5, 6, 8, 10, 12}));  // 5 because of its weights of every token
  EXPECT_EQ(record.alpha_steps, (std::vector<std::int64_t>{0, 5, 10, 12}));
  EXPECT_EQ(valid, (std::vector<std::int64_t>{0, 4, 8, 12}));
  ASSERT_EQ(record.train.size(), 12u);
  EXPECT_EQ(record.train.back().tokens_seen, 12 * 64);
  EXPECT_LT(record.valid.back().loss, record.valid.front().loss - 0.1);  // it learns
  EXPECT_EQ(record.info.config, data::read_text(dir / "config.yaml"));
  EXPECT_NO_THROW(load_config(dir / "config.yaml", {}));
  // At the start routing is uniform over the sources: queries are zero and there is no bias.
  const auto columns = record.info.sources.size();
  for (std::size_t r = 0; r < record.info.reads.size(); ++r) {
    double sum = 0;
    for (std::size_t c = 0; c < columns; ++c) {
      const float mean = record.snapshots.front().alpha_mean[r * columns + c];
      if (!std::isnan(mean)) sum += static_cast<double>(mean);
    }
    EXPECT_NEAR(sum, 1.0, 1e-6) << record.info.reads[r];
    EXPECT_NEAR(record.snapshots.front().alpha_std[r * columns], 0.0, 1e-3) << record.info.reads[r];
  }
}

TEST_F(Resume, StoppedAfterAnyStep) {
  for (std::int64_t step = 0; step < 12; ++step) {
    SCOPED_TRACE("stopped after step " + std::to_string(step));
    const std::string run = "stopped" + std::to_string(step);
    const LoopResult result = micro_->train(run, {}, [step](std::int64_t at) { return at == step ? SIGTERM : 0; });
    EXPECT_EQ(result.stopped, SIGTERM);
    EXPECT_EQ(result.step, step);
    EXPECT_EQ(newest_intact_checkpoint(micro_->dir(run), *kernels::single_communicator())->step, step);
    EXPECT_EQ(micro_->train(run).stopped, 0);
    testing::expect_same_run(micro_->dir(run), micro_->dir("whole"));
  }
}

TEST_F(Resume, CrashedAfterAnyStep) {
  for (std::int64_t step = 0; step < 12; ++step) {
    SCOPED_TRACE("crashed after step " + std::to_string(step));
    const std::string run = "crashed" + std::to_string(step);
    crash_after(run, step, step % 2 == 0 ? "off" : "on");
    micro_->train(run);
    testing::expect_same_run(micro_->dir(run), micro_->dir("whole"));
    EXPECT_EQ(testing::checkpoint_names(micro_->dir(run)), testing::checkpoint_names(micro_->dir("whole")));
  }
}

TEST_F(Resume, AFinishedRunDoesNotChange) {
  const auto written = fs::last_write_time(micro_->dir("whole") / "routing.h5");
  const LoopResult result = micro_->train("whole");
  EXPECT_EQ(result.step, 12);
  EXPECT_EQ(result.stopped, 0);
  EXPECT_EQ(fs::last_write_time(micro_->dir("whole") / "routing.h5"), written);
}

TEST_F(Resume, AfterAFlippedByteThePreviousCheckpointIsUsed) {
  for (const char* file : {"model.safetensors", "train_state.safetensors", "config.json", "MANIFEST.json"}) {
    SCOPED_TRACE(file);
    const std::string run = std::string("flipped-") + file;
    crash_after(run, 8);  // checkpoints up to 6
    const fs::path broken = micro_->dir(run) / "checkpoints" / "step-00000006" / file;
    flip_byte(broken, static_cast<std::streamoff>(fs::file_size(broken) / 2));
    const auto newest = newest_intact_checkpoint(micro_->dir(run), *kernels::single_communicator());
    ASSERT_TRUE(newest);
    EXPECT_EQ(newest->step, 4);
    micro_->train(run);
    testing::expect_same_run(micro_->dir(run), micro_->dir("whole"));
    EXPECT_NO_THROW(data::verify_manifest(micro_->dir(run) / "checkpoints" / "step-00000006"));  // written anew
  }
}

TEST_F(Resume, ACheckpointWithoutAManifestIsIgnored) {
  crash_after("manifest", 8);
  fs::remove(micro_->dir("manifest") / "checkpoints" / "step-00000006" / "MANIFEST.json");
  EXPECT_EQ(newest_intact_checkpoint(micro_->dir("manifest"), *kernels::single_communicator())->step, 4);
  micro_->train("manifest");
  testing::expect_same_run(micro_->dir("manifest"), micro_->dir("whole"));
}

TEST_F(Resume, WithoutAnIntactCheckpointItIsAnErrorAndNothingChanges) {
  crash_after("broken", 1);
  const fs::path checkpoints = micro_->dir("broken") / "checkpoints";
  for (const std::string& name : testing::checkpoint_names(micro_->dir("broken"))) {
    flip_byte(checkpoints / name / "model.safetensors", 1000);
  }
  const std::string record = data::sha256_file(micro_->dir("broken") / "routing.h5");
  EXPECT_NE(refusal("broken", {}).find("found no intact checkpoint"), std::string::npos);
  EXPECT_EQ(data::sha256_file(micro_->dir("broken") / "routing.h5"), record);
  for (const std::string& name : testing::checkpoint_names(micro_->dir("broken"))) {
    fs::remove(checkpoints / name / "MANIFEST.json");
  }
  EXPECT_NE(refusal("broken", {}).find("found no intact checkpoint"), std::string::npos);
  fs::remove_all(checkpoints);
  EXPECT_NE(refusal("broken", {}).find("no checkpoint, expected a checkpoint to resume from"), std::string::npos);
  EXPECT_EQ(data::sha256_file(micro_->dir("broken") / "routing.h5"), record);
}

TEST_F(Resume, AnotherRunIsRefusedWithTheKey) {
  crash_after("mine", 5);
  const std::string config = data::read_text(micro_->dir("mine") / "config.yaml");
  const std::string record = data::sha256_file(micro_->dir("mine") / "routing.h5");
  const auto expect_refused = [](const std::string& override, const std::string& words) {
    const std::string message = refusal("mine", {override});
    EXPECT_NE(message.find(words), std::string::npos) << override << ": " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos);
  };
  expect_refused("model.hidden_size=64", "model.hidden_size: found 64, expected 32");
  expect_refused("model.residual=standard", "model.residual: found standard, expected block_attn_res");
  expect_refused("model.attn_res.num_blocks=4", "model.attn_res.num_blocks: found 4, expected 2");
  expect_refused("run.seed=8", "run.seed: found 8, expected 7");
  expect_refused("train.steps=13", "train.steps: found 13, expected 12");
  expect_refused("train.optimizer.learning_rate=1e-3", "train.optimizer.learning_rate: found 0.001, expected 0.01");
  expect_refused("train.schedule.warmup_steps=4", "train.schedule.warmup_steps: found 4, expected 3");
  expect_refused("data.sequence_length=8", "data.sequence_length: found 8, expected 16");
  expect_refused("precision=bf16", "precision: found bf16, expected f32");
  expect_refused("valid.every=5", "valid.every: found 5, expected 4");
  fs::copy(micro_->directory() / "valid.bin", micro_->directory() / "other.bin");
  expect_refused(fmt::format("data.train=['{}']", (micro_->directory() / "other.bin").string()),
                 "data.train (fingerprint)");
  EXPECT_EQ(data::read_text(micro_->dir("mine") / "config.yaml"), config);
  EXPECT_EQ(data::sha256_file(micro_->dir("mine") / "routing.h5"), record);
  micro_->train("mine");
  testing::expect_same_run(micro_->dir("mine"), micro_->dir("whole"));
}

TEST_F(Resume, AMovedDirectoryAndMovedDataAreTheSameRun) {
  crash_after("here", 5);
  fs::rename(micro_->dir("here"), micro_->dir("there"));
  fs::copy(micro_->directory() / "train.bin", micro_->directory() / "copy.bin");
  micro_->train("there", {fmt::format("data.train=['{}']", (micro_->directory() / "copy.bin").string())});
  testing::expect_same_run(micro_->dir("there"), micro_->dir("whole"));
  const TrainConfig now = load_config(micro_->dir("there") / "config.yaml", {});
  EXPECT_EQ(now.run.dir, micro_->dir("there").string());
}

TEST_F(Resume, TheConfigurationOfARunThatWasCopiedOrMovedIsRefused) {
  crash_after("original", 5);
  const fs::path original = micro_->dir("original"), copy = micro_->dir("copy");
  fs::copy(original, copy, fs::copy_options::recursive);
  const auto refused = [&](const fs::path& file, const std::vector<std::string>& overrides) -> std::string {
    try {
      check_place(file, overrides, load_config(file, overrides));
    } catch (const data::Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(refused(original / "config.yaml", {}), "");
  const std::string text = refused(copy / "config.yaml", {"train.steps=20"});
  EXPECT_NE(text.find("run.dir: found " + original.string()), std::string::npos) << text;
  EXPECT_NE(text.find("run.dir=" + copy.string() + " on the command line"), std::string::npos) << text;
  // What the message advises, a link to the run, and other ways to write its path.
  EXPECT_EQ(refused(copy / "config.yaml", {"run.dir=" + copy.string()}), "");
  EXPECT_EQ(refused(copy / "config.yaml", {"run={dir: " + copy.string() + "}"}), "");
  fs::create_directory_symlink(original, micro_->dir("link"));
  EXPECT_EQ(refused(micro_->dir("link") / "config.yaml", {}), "");
  EXPECT_EQ(refused(original / ".." / "original" / "config.yaml", {}), "");
  // A configuration in no run directory.
  EXPECT_EQ(refused(micro_->config_file(), {}), "");
  fs::create_directory(micro_->dir("recipes"));
  fs::copy(original / "config.yaml", micro_->dir("recipes") / "config.yaml");
  EXPECT_EQ(refused(micro_->dir("recipes") / "config.yaml", {}), "");
  // Moved: the directory that run.dir names is not there.
  fs::rename(original, micro_->dir("moved"));
  EXPECT_NE(refused(micro_->dir("moved") / "config.yaml", {}), "");
}

class ResumeData : public Resume {
 protected:
  ResumeData() : train_(micro_->directory() / "changing.bin"), valid_(micro_->directory() / "changing-valid.bin") {
    fs::copy(micro_->directory() / "train.bin", train_, fs::copy_options::overwrite_existing);
    fs::copy(micro_->directory() / "valid.bin", valid_, fs::copy_options::overwrite_existing);
  }
  std::vector<std::string> overrides() const {
    return {"data.train=['" + train_.string() + "']", "data.valid=['" + valid_.string() + "']"};
  }
  fs::path train_, valid_;
};

// The run ends with a line and a checkpoint, and goes on to the same bits once the file is back.
TEST_F(ResumeData, FilesThatChangeDuringARunEndItWithACheckpoint) {
  const std::vector<std::pair<std::string, std::function<void(const fs::path&)>>> changes{
      {"shrinks", [](const fs::path& file) { fs::resize_file(file, fs::file_size(file) / 2); }},
      {"is empty", [](const fs::path& file) { fs::resize_file(file, 0); }},
      {"grows", [](const fs::path& file) { std::ofstream(file, std::ios::app) << "more"; }},
      {"is replaced",
       [](const fs::path& file) {
         fs::copy(file, file.string() + ".new");
         fs::rename(file.string() + ".new", file);
       }},
      {"is written again",
       [](const fs::path& file) { fs::last_write_time(file, fs::last_write_time(file) + std::chrono::seconds(2)); }},
      {"is removed", [](const fs::path& file) { fs::remove(file); }},
      {"is a directory", [](const fs::path& file) {
         fs::remove(file);
         fs::create_directory(file);
       }}};
  for (const auto& [name, change] : changes) {
    for (const fs::path& file : {train_, valid_}) {
      const std::string run = name + " " + file.filename().string();
      SCOPED_TRACE(run);
      const fs::path saved = file.string() + ".saved";
      fs::copy(file, saved);
      std::string message = "(it went on)";
      try {
        micro_->train(run, overrides(), [&change = change, &file](std::int64_t at) {
          if (at == 5) change(file);
          return 0;
        });
      } catch (const std::exception& error) {
        message = error.what();
      }
      fs::remove_all(file);
      fs::rename(saved, file);
      EXPECT_NE(message.find(file.string()), std::string::npos) << message;
      EXPECT_NE(message.find("changed while it was in use"), std::string::npos) << message;
      EXPECT_NE(message.find("stopped with a checkpoint of step "), std::string::npos) << message;
      const std::int64_t last = data::list_checkpoints(micro_->dir(run)).back().step;
      EXPECT_GE(last, 5);
      EXPECT_LE(last, 6);
      EXPECT_EQ(micro_->train(run, overrides()).step, 12);
      testing::expect_same_run(micro_->dir(run), micro_->dir("whole"));
    }
  }
}

TEST_F(Resume, AFinishedRunWithoutItsRecordIsNotFinished) {
  micro_->train("record");
  const fs::path record = micro_->dir("record") / "routing.h5";
  for (const char* kind : {"absent", "directory", "text"}) {
    fs::remove_all(record);
    if (kind == std::string("directory")) fs::create_directory(record);
    if (kind == std::string("text")) std::ofstream(record) << "no record";
    EXPECT_NE(refusal("record", {}).find("routing.h5"), std::string::npos) << kind << ": " << refusal("record", {});
  }
}

TEST_F(Resume, AConstantRateRunCanBeMadeLonger) {
  const std::vector<std::string> constant{"train.schedule.kind=constant"};
  micro_->train("long", constant);
  std::vector<std::string> shorter = constant, longer = constant;
  shorter.push_back("train.steps=8");
  micro_->train("short", shorter);
  micro_->train("short", constant);
  // The last step of the shorter run keeps its rows. The weights are those of a run that was long from the start.
  EXPECT_EQ(data::sha256_file(micro_->dir("short") / "checkpoints/step-00000012/model.safetensors"),
            data::sha256_file(micro_->dir("long") / "checkpoints/step-00000012/model.safetensors"));
  EXPECT_NE(refusal("short", shorter).find("train.steps: found 8, expected 12"), std::string::npos);
}

TEST_F(Resume, KeepKeepsTheNewest) {
  const std::vector<std::string> keep{"checkpoint.keep=2"};
  crash_after("keep", 7, "off", keep);
  EXPECT_EQ(testing::checkpoint_names(micro_->dir("keep")),
            (std::vector<std::string>{"step-00000004", "step-00000006"}));
  micro_->train("keep", keep);
  EXPECT_EQ(testing::checkpoint_names(micro_->dir("keep")),
            (std::vector<std::string>{"step-00000009", "step-00000012"}));
  testing::expect_same_run(micro_->dir("keep"), micro_->dir("whole"));
}

TEST_F(Resume, KeepStateLeavesOlderOnesTheirWeights) {
  const std::vector<std::string> keep{"checkpoint.keep_state=1"};
  crash_after("weights", 7, "off", keep);
  micro_->train("weights", keep);
  testing::expect_same_record(micro_->dir("weights") / "routing.h5", micro_->dir("whole") / "routing.h5");
  EXPECT_EQ(testing::checkpoint_names(micro_->dir("weights")), testing::checkpoint_names(micro_->dir("whole")));
  for (const data::CheckpointEntry& entry : data::list_checkpoints(micro_->dir("weights"))) {
    EXPECT_NO_THROW(data::verify_manifest(entry.dir));
    EXPECT_EQ(fs::exists(entry.dir / "train_state.safetensors"), entry.step == 12) << entry.step;
    EXPECT_EQ(data::sha256_file(entry.dir / "model.safetensors"),
              data::sha256_file(data::checkpoint_dir(micro_->dir("whole"), entry.step) / "model.safetensors"));
  }
}

TEST_F(Resume, RoundedWeightsOfOlderOnesChangeNoRun) {
  const std::vector<std::string> keep{"checkpoint.keep_state=2", "checkpoint.weights_dtype=bf16"};
  crash_after("rounded", 7, "off");  // both keys may change at a resume
  micro_->train("rounded", keep);
  testing::expect_same_record(micro_->dir("rounded") / "routing.h5", micro_->dir("whole") / "routing.h5");
  for (const char* file : {"model.safetensors", "train_state.safetensors"})
    EXPECT_EQ(data::sha256_file(data::checkpoint_dir(micro_->dir("rounded"), 12) / file),
              data::sha256_file(data::checkpoint_dir(micro_->dir("whole"), 12) / file));
}

TEST_F(Resume, DebrisOfAKilledSaveIsRemoved) {
  crash_after("debris", 5);
  const fs::path checkpoints = micro_->dir("debris") / "checkpoints";
  fs::copy(checkpoints / "step-00000004", checkpoints / ".writing-step-00000006");
  fs::copy(checkpoints / "step-00000004", checkpoints / ".removing-step-00000003");
  micro_->train("debris");
  EXPECT_EQ(testing::checkpoint_names(micro_->dir("debris")), testing::checkpoint_names(micro_->dir("whole")));
}

TEST_F(Resume, OtherModelsAndPrecisionsResumeToo) {
  for (const char* kind : {"model.residual=standard", "model.attn_res.source=cumulative",
                           "model.residual=full_attn_res", "precision=bf16"}) {
    SCOPED_TRACE(kind);
    const std::string whole = std::string("whole-") + kind, cut = std::string("cut-") + kind;
    const std::vector<std::string> overrides{kind, "model.attn_res.recency_bias=0.5"};
    micro_->train(whole, overrides);
    struct Crash {};
    EXPECT_THROW(micro_->train(cut, overrides, [](std::int64_t at) { return at == 7 ? throw Crash() : 0; }), Crash);
    micro_->train(cut, overrides);
    testing::expect_same_run(micro_->dir(cut), micro_->dir(whole));
  }
}

TEST_F(Resume, WithBadDataNoRunDirectoryIsMade) {
  EXPECT_NE(refusal("none", {"routing.sequences=1000"}).find("routing.sequences: found 1000, expected at most"),
            std::string::npos);
  EXPECT_NE(refusal("none", {"model.vocab_size=100"}), "(not refused)");
  EXPECT_NE(refusal("none", {"data.train=[/nowhere/x.bin]"}), "(not refused)");
  EXPECT_FALSE(fs::exists(micro_->dir("none")));
}

}  // namespace
}  // namespace routescope::train
