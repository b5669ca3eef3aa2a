// Which checkpoints checkpoint.keep removes: never the last intact one.
#include "train/checkpoint/checkpoint_retention.h"

#include <gtest/gtest.h>

#include <chrono>
#include <set>
#include <thread>

#include "data/base/files.h"
#include "tests/train/checkpoint/checkpoints.h"
#include "train/checkpoint/checkpoint_directory.h"
#include "train/checkpoint/checkpoint_search.h"

namespace routescope::train {
namespace {

namespace fs = std::filesystem;
using testing::Checkpoints;

TEST_F(Checkpoints, KeepCountsIntactCheckpoints) {
  const auto keeping = writer(true, 2);
  for (const std::int64_t step : {1, 2, 3}) write(*keeping, step);
  EXPECT_EQ(testing::checkpoint_names(dir()), (std::vector<std::string>{"step-00000002", "step-00000003"}));
  write(*writer(false), 4);
  write(*writer(false), 9);
  flip(at(3) / "model.safetensors", 4000, 1);
  flip(at(4) / "train_state.safetensors", 4000, 1);
  flip(at(9) / "model.safetensors", 4000, 1);
  // A run that went back behind damaged checkpoints. They do not count, and no intact one is removed for them.
  const auto resumed = writer(true, 2);
  write(*resumed, 5);
  settle_until(*resumed, {"step-00000002", "step-00000003", "step-00000004", "step-00000005", "step-00000009"});
  write(*resumed, 6);
  EXPECT_EQ(testing::checkpoint_names(dir()),
            (std::vector<std::string>{"step-00000005", "step-00000006", "step-00000009"}));
  EXPECT_EQ(newest_intact_checkpoint(dir(), *alone_)->step, 6);
  const auto one = writer(false, 1);
  write(*one, 7);
  EXPECT_EQ(testing::checkpoint_names(dir()), (std::vector<std::string>{"step-00000007", "step-00000009"}));
}

TEST_F(Checkpoints, TheWeightsOfStepZeroStay) {
  const auto keeping = writer(true, 1);
  write(*keeping, 0);
  const std::string weights = data::sha256_file(at(0) / "model.safetensors");
  write(*keeping, 1);
  EXPECT_EQ(testing::checkpoint_names(dir()), (std::vector<std::string>{"step-00000001"}));
  const fs::path initial = data::initial_dir(dir());
  EXPECT_EQ(data::sha256_file(initial / "model.safetensors"), weights);
  std::set<std::string> names;
  for (const auto& file : fs::directory_iterator(initial)) names.insert(file.path().filename());
  EXPECT_EQ(names, (std::set<std::string>{"config.json", "model.safetensors"}));  // a model directory, no checkpoint
  write(*keeping, 2);
  EXPECT_EQ(data::sha256_file(initial / "model.safetensors"), weights);
}

TEST_F(Checkpoints, OlderCheckpointsAreReadBeforeOthersAreRemoved) {
  const auto synchronous = writer(false);
  for (const std::int64_t step : {1, 2, 3, 4}) write(*synchronous, step);
  flip(at(3) / "model.safetensors", 4000, 1);
  flip(at(4) / "train_state.safetensors", 4000, 1);
  const auto resumed = writer(true, 2);
  write(*resumed, 5);
  settle_until(*resumed, {"step-00000002", "step-00000003", "step-00000004", "step-00000005"});
  // The checkpoint that was read at the start is known to be intact.
  const auto informed = writer(true, 2, 5);
  write(*informed, 6);
  EXPECT_EQ(testing::checkpoint_names(dir()), (std::vector<std::string>{"step-00000005", "step-00000006"}));
}

TEST_F(Checkpoints, CheckpointsBetweenSkippedStepsDoNotCount) {
  const auto keeping = writer(true, 1);
  write(*keeping, 1);
  write(*keeping, 2, 1);
  write(*keeping, 3, 2);
  const std::vector<std::string> all{"step-00000001", "step-00000002", "step-00000003"};
  EXPECT_EQ(testing::checkpoint_names(dir()), all);
  // The same holds in a process that resumes the run.
  const auto resumed = writer(true, 2, 3);
  write(*resumed, 4, 3);
  EXPECT_EQ(testing::checkpoint_names(dir()).size(), 4u);
  write(*resumed, 5);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(200);
  while (std::chrono::steady_clock::now() < deadline) resumed->settle(CheckpointWriter::nothing_to_do);
  EXPECT_EQ(testing::checkpoint_names(dir()).size(), 5u);
  write(*resumed, 6);
  EXPECT_EQ(testing::checkpoint_names(dir()), (std::vector<std::string>{"step-00000005", "step-00000006"}));
}

// Reading these files would take half a minute or more.
TEST_F(Checkpoints, TrainingDoesNotWaitForTheReading) {
  for (const std::int64_t step : {1, 2}) {
    fs::create_directories(at(step));
    std::ofstream(at(step) / "model.safetensors").close();
    fs::resize_file(at(step) / "model.safetensors", std::uintmax_t{1} << 36);
    data::write_manifest(at(step), {{"model.safetensors", std::uintmax_t{1} << 36, std::string(64, 'a')}});
  }
  const auto begin = std::chrono::steady_clock::now();
  {
    const auto resumed = writer(true, 2);
    write(*resumed, 3);
    write(*resumed, 4);
    EXPECT_EQ(testing::checkpoint_names(dir()), (std::vector<std::string>{"step-00000003", "step-00000004"}));
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
}

/// The steps whose checkpoints have a state.
std::vector<std::int64_t> states(const fs::path& run_dir) {
  std::vector<std::int64_t> out;
  for (const data::CheckpointEntry& entry : data::list_checkpoints(run_dir))
    if (has_state(entry)) out.push_back(entry.step);
  return out;
}

using Steps = std::vector<std::int64_t>;

TEST_F(Checkpoints, OlderOnesKeepTheirWeightsAlone) {
  const auto keeping = writer(true, 0, -1, 2);
  write(*keeping, 0);
  const std::string weights = data::sha256_file(at(0) / "model.safetensors");
  for (const std::int64_t step : {1, 2, 3}) write(*keeping, step);
  EXPECT_EQ(states(dir()), (Steps{2, 3}));
  EXPECT_EQ(testing::checkpoint_names(dir()).size(), 4U);
  EXPECT_EQ(data::sha256_file(at(0) / "model.safetensors"), weights);
  for (const std::int64_t step : {0, 1, 2, 3}) EXPECT_NO_THROW(data::verify_manifest(at(step))) << step;
  EXPECT_EQ(testing::names_in(at(0)), (std::vector<std::string>{"MANIFEST.json", "config.json", "model.safetensors"}));
  for (const auto& entry : fs::directory_iterator(at(0).parent_path()))
    EXPECT_TRUE(entry.path().filename().string().starts_with("step-")) << entry.path();
  EXPECT_EQ(newest_intact_checkpoint(dir(), *alone_)->step, 3);
}

TEST_F(Checkpoints, BothNumbersHold) {
  const auto keeping = writer(true, 3, -1, 1);
  for (const std::int64_t step : {1, 2, 3, 4, 5}) write(*keeping, step);
  EXPECT_EQ(testing::checkpoint_names(dir()),
            (std::vector<std::string>{"step-00000003", "step-00000004", "step-00000005"}));
  EXPECT_EQ(states(dir()), Steps{5});
  // What an earlier process left without its state counts as well, once it was read.
  const auto resumed = writer(true, 3, 5, 1);
  write(*resumed, 6);
  settle_until(*resumed, {"step-00000004", "step-00000005", "step-00000006"});
  EXPECT_EQ(states(dir()), Steps{6});
}

TEST_F(Checkpoints, NoStateIsRemovedForADamagedCheckpoint) {
  const auto synchronous = writer(false);
  for (const std::int64_t step : {1, 2, 3, 4}) write(*synchronous, step);
  flip(at(4) / "train_state.safetensors", 4000, 1);
  const auto resumed = writer(true, 0, -1, 2);
  write(*resumed, 5, 1);  // between skipped steps: a run may have to go back behind it
  EXPECT_EQ(states(dir()), (Steps{1, 2, 3, 4, 5}));
  write(*resumed, 6);
  for (int i = 0; i < 1000 && states(dir()).size() > 4; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    resumed->settle(CheckpointWriter::nothing_to_do);
  }
  EXPECT_EQ(states(dir()), (Steps{3, 4, 5, 6}));  // 6 and 3 are intact and outside of skipped steps
  flip(at(6) / "model.safetensors", 4000, 1);
  EXPECT_EQ(newest_intact_checkpoint(dir(), *alone_)->step, 5);
}

TEST_F(Checkpoints, WithoutAStateNoRunGoesOnFromThem) {
  const auto keeping = writer(true, 0, -1, 1);
  for (const std::int64_t step : {1, 2, 3}) write(*keeping, step);
  flip(at(3) / "model.safetensors", 4000, 1);
  const std::string error = error_of([&] { newest_intact_checkpoint(dir(), *alone_); });
  EXPECT_NE(error.find("found no intact checkpoint with optimizer state, expected one of the 3 to resume from"),
            std::string::npos)
      << error;
  fs::remove_all(at(3));
  EXPECT_NE(error_of([&] { newest_intact_checkpoint(dir(), *alone_); }).find("with optimizer state"),
            std::string::npos);  // and not a new run in the same place
}

/// Wherever a kill interrupts it, a complete checkpoint has the name, or gets it at the next start.
TEST_F(Checkpoints, AKillWhileAStateIsRemovedLosesNoCheckpoint) {
  const fs::path parent = at(1).parent_path(), weights = parent / ".weights-step-00000001",
                 hidden = parent / ".removing-step-00000001";
  write(*writer(false), 1);
  fs::copy(at(1), parent / "whole");
  const auto reset = [&] {
    for (const fs::path& path : {at(1), weights, hidden}) fs::remove_all(path);
    fs::copy(parent / "whole", at(1));
  };
  const auto expect_one = [&](bool with_state) {
    remove_debris(dir());
    EXPECT_NO_THROW(data::verify_manifest(at(1)));
    EXPECT_EQ(has_state({1, at(1)}), with_state);
    EXPECT_FALSE(fs::exists(weights) || fs::exists(hidden));
  };
  // Before its manifest.
  fs::create_directory(weights);
  fs::copy_file(at(1) / "config.json", weights / "config.json");
  expect_one(true);
  // After it, before the exchange.
  reset();
  fs::copy(at(1), weights);
  remove_state(weights);
  expect_one(true);
  // After the exchange.
  reset();
  remove_state(at(1));
  fs::copy(parent / "whole", weights);
  expect_one(false);
  // Without an exchange, between the two renames.
  reset();
  fs::copy(at(1), weights);
  remove_state(weights);
  fs::rename(at(1), hidden);
  expect_one(false);
}

}  // namespace
}  // namespace routescope::train
