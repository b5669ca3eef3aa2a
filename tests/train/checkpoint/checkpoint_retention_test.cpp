// Which checkpoints checkpoint.keep removes: never the last intact one.
#include "train/checkpoint/checkpoint_retention.h"

#include <gtest/gtest.h>

#include <set>

#include "data/base/files.h"
#include "tests/train/checkpoint/checkpoints.h"
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

}  // namespace
}  // namespace routescope::train
