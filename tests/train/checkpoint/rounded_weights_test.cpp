// Checkpoints that lose their state and keep their weights rounded to bf16 (checkpoint.weights_dtype).
#include "model/files/rounded_weights.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <random>
#include <thread>

#include "data/base/files.h"
#include "data/base/sha256.h"
#include "kernels/bf16.h"
#include "model/files/safetensors.h"
#include "tests/data/base/full_disk.h"
#include "tests/train/checkpoint/checkpoints.h"
#include "train/checkpoint/checkpoint_directory.h"
#include "train/checkpoint/checkpoint_search.h"

namespace routescope::train {
namespace {

namespace fs = std::filesystem;

constexpr kernels::DType bf16 = kernels::DType::bf16;

class RoundedWeights : public testing::Checkpoints {
 protected:
  fs::path weights(std::int64_t step) const { return at(step) / "model.safetensors"; }
  fs::path hidden(std::int64_t step) const {
    return at(step).parent_path() / (".weights-" + at(step).filename().string());
  }
  static std::vector<float> values(const fs::path& file, const model::SafetensorsEntry& entry) {
    std::vector<float> out((entry.end - entry.begin) / static_cast<std::size_t>(kernels::size_of(entry.dtype)));
    model::SafetensorsReader(file).read_elements(
        entry.name, 0, kernels::Tensor(out.data(), kernels::DType::f32, kernels::Device::cpu, {std::ssize(out)}));
    return out;
  }
  std::vector<std::int64_t> states() const {
    std::vector<std::int64_t> out;
    for (const data::CheckpointEntry& entry : data::list_checkpoints(dir()))
      if (has_state(entry)) out.push_back(entry.step);
    return out;
  }
  void settle_until_states(CheckpointWriter& writer, const std::vector<std::int64_t>& expected) const {
    for (int i = 0; i < 1000 && states() != expected; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      writer.settle(CheckpointWriter::nothing_to_do);
    }
    EXPECT_EQ(states(), expected);
  }
  /// Whole, or rounded, and nothing beside it.
  void expect_intact(std::int64_t step) const {
    EXPECT_NO_THROW(data::verify_manifest(at(step)));
    EXPECT_EQ(has_state({step, at(step)}), model::rounded_from(weights(step)).empty());
    EXPECT_FALSE(fs::exists(hidden(step)));
  }
};

TEST_F(RoundedWeights, EveryNumberIsTheNearestOfBf16AndTheFileNamesItsSource) {
  write(*writer(false), 1);
  const fs::path original = dir() / "original.safetensors";
  fs::copy_file(weights(1), original);
  EXPECT_EQ(model::rounded_from(original), "");
  remove_state(at(1), bf16);
  expect_intact(1);
  EXPECT_EQ(model::rounded_from(weights(1)), data::sha256_file(original));
  const model::SafetensorsReader found(weights(1)), expected(original);
  ASSERT_EQ(found.entries().size(), expected.entries().size());
  std::int64_t differ = 0;
  for (const model::SafetensorsEntry& entry : expected.entries()) {
    EXPECT_EQ(found.entry(entry.name).dtype, bf16);
    EXPECT_EQ(found.entry(entry.name).shape, entry.shape);
    const std::vector<float> now = values(weights(1), found.entry(entry.name)), was = values(original, entry);
    ASSERT_EQ(now.size(), was.size());
    for (std::size_t i = 0; i < was.size(); ++i) {
      ASSERT_EQ(now[i], kernels::to_float(kernels::to_bf16(was[i]))) << entry.name << " " << i;
      differ += now[i] != was[i];
    }
  }
  EXPECT_GT(differ, 0);
}

TEST_F(RoundedWeights, OlderCheckpointsKeepThemBesideTraining) {
  auto keeping = writer(true, 0, -1, 1, bf16);
  for (const std::int64_t step : {0, 1, 2, 3}) write(*keeping, step);
  settle_until_states(*keeping, {3});
  keeping.reset();  // which waits for what is being removed
  for (const std::int64_t step : {0, 1, 2, 3}) expect_intact(step);
  EXPECT_EQ(newest_intact_checkpoint(dir(), *alone_)->step, 3);
}

TEST_F(RoundedWeights, TheLastOneIsRoundedBeforeTheRunEnds) {
  {
    const auto keeping = writer(true, 2, -1, 1, bf16);
    for (const std::int64_t step : {1, 2, 3, 4}) write(*keeping, step);
  }
  EXPECT_EQ(states(), std::vector<std::int64_t>{4});
  expect_intact(3);
}

TEST_F(RoundedWeights, ADamagedOneStaysAsItIs) {
  write(*writer(false), 1);
  testing::Checkpoints::flip(weights(1), 4000, 1);
  const std::string damaged = data::sha256_file(weights(1));
  auto keeping = writer(true, 0, -1, 1, bf16);
  for (const std::int64_t step : {2, 3}) write(*keeping, step);
  settle_until_states(*keeping, {1, 3});
  keeping.reset();
  EXPECT_EQ(data::sha256_file(weights(1)), damaged);
  EXPECT_THROW(data::verify_manifest(at(1)), data::Error);
  EXPECT_FALSE(fs::exists(hidden(1)));
  expect_intact(2);
}

TEST_F(RoundedWeights, AFullDiskLeavesTheCheckpointWhole) {
  write(*writer(false), 1);
  const auto whole = static_cast<rlim_t>(fs::file_size(weights(1)));
  const std::string text = data::on_full_disk(whole / 4, [&]() -> std::string {
    remove_state(at(1), bf16);
    return "no error";
  });
  EXPECT_NE(text.find("model.safetensors"), std::string::npos) << text;
  EXPECT_EQ(states(), std::vector<std::int64_t>{1});
  expect_intact(1);
  remove_state(at(1), bf16);
  EXPECT_EQ(states(), std::vector<std::int64_t>{});
  expect_intact(1);
}

TEST_F(RoundedWeights, AKillAtAnyMomentLeavesAnIntactCheckpoint) {
  write(*writer(false), 1);
  fs::copy(at(1), dir() / "whole");
  const auto begin = std::chrono::steady_clock::now();
  remove_state(at(1), bf16);
  const std::chrono::duration<double, std::micro> undisturbed = std::chrono::steady_clock::now() - begin;
  std::mt19937 random(11);
  int killed = 0;
  for (int i = 0; i < 60; ++i) {
    fs::remove_all(at(1));
    fs::copy(dir() / "whole", at(1));
    const pid_t child = ::fork();
    if (child == 0) {
      remove_state(at(1), bf16);
      ::_exit(0);
    }
    ::usleep(static_cast<useconds_t>(random() % static_cast<unsigned>(1.2 * undisturbed.count() + 1)));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    killed += WIFSIGNALED(status);
    EXPECT_NO_THROW(data::verify_manifest(at(1))) << "before the next start, seed 11, kill " << i;
    remove_debris(dir());
    expect_intact(1);
  }
  EXPECT_GT(killed, 0);
}

}  // namespace
}  // namespace routescope::train
