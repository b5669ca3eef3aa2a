// Checkpoints of ranks that are threads: written by some number, taken up by another, and every rank learns the same of
// what went wrong on one.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <ostream>
#include <thread>

#include "data/base/error.h"
#include "data/base/files.h"
#include "kernels/comm/agree.h"
#include "kernels/ops.h"
#include "tests/train/checkpoint/checkpoint_case.h"
#include "tests/train/run/micro_run.h"
#include "tests/train/run/thread_ranks.h"
#include "train/checkpoint/checkpoint_search.h"
#include "train/checkpoint/checkpoint_writer.h"

namespace routescope::train {
namespace {

namespace fs = std::filesystem;
using testing::checkpoint_model;
using testing::checkpoint_state;
using testing::names_in;
using testing::run_ranks;

struct Setting {
  std::int64_t zero;
  kernels::DType operands;
  std::string name;
};
void PrintTo(const Setting& setting, std::ostream* out) {
  *out << setting.name;
}

class CheckpointRanks : public ::testing::TestWithParam<Setting> {
 protected:
  model::ModelOptions options(const kernels::Communicator& communicator) const {
    return {.operands = GetParam().operands, .shards = communicator.size()};
  }
  Sharding sharding() const { return {.zero = GetParam().zero, .bucket_mb = 1}; }
  fs::path dir() const { return directory_.path(); }
  fs::path at(std::int64_t step) const { return data::checkpoint_dir(dir(), step); }

  /// On each of `ranks` ranks: a model with a known optimizer state and its writer, passed to `body`.
  std::vector<std::string> with_writers(
      int ranks, bool async, const std::function<void(CheckpointWriter&, testing::ThreadCommunicator&)>& body) const {
    return testing::run_ranks(ranks, [&](testing::ThreadCommunicator& communicator) {
      model::Model model(testing::checkpoint_model(), options(communicator));
      model.initialize(3);
      Optimizer optimizer(model, {}, communicator, sharding());
      testing::set_state(model.layout(), optimizer.state());
      CheckpointWriter writer(dir(), model, optimizer, communicator, {.async = async, .keep = 0});
      body(writer, communicator);
    });
  }
  testing::TemporaryDirectory directory_;
};

TEST_P(CheckpointRanks, AnyNumberTakesUpWhatAnyNumberWrote) {
  model::Model alone(testing::checkpoint_model(), {});
  alone.initialize(3);
  for (const auto& [writers, readers] : {std::pair{4, 1}, {4, 3}, {1, 4}, {3, 4}, {4, 4}}) {
    SCOPED_TRACE(fmt::format("{} wrote, {} read", writers, readers));
    fs::remove_all(dir() / "checkpoints");
    const auto failed = with_writers(writers, writers > 1, [](CheckpointWriter& writer, kernels::Communicator&) {
      writer.begin(testing::checkpoint_state(4));
      writer.finish();
      EXPECT_EQ(writer.completed(), 4);
    });
    ASSERT_EQ(failed, std::vector<std::string>(static_cast<std::size_t>(writers)));
    EXPECT_EQ(testing::names_in(dir() / "checkpoints"), std::vector<std::string>{"step-00000004"});
    EXPECT_EQ(testing::names_in(at(4)).size(), static_cast<std::size_t>(writers) + 3);
    EXPECT_NO_THROW(data::verify_manifest(at(4)));
    // The model is complete and f32, however many ranks had a part of it.
    const model::Model whole = model::Model::load(at(4), {});
    for (const model::ParameterInfo& info : whole.layout().all())
      ASSERT_EQ(kernels::host_values<float>(whole.parameter(info.name), {}),
                kernels::host_values<float>(alone.parameter(info.name), {}))
          << info.name;
    const auto errors = testing::run_ranks(readers, [&](kernels::Communicator& communicator) {
      const auto entry = newest_intact_checkpoint(dir(), communicator);
      ASSERT_TRUE(entry);
      EXPECT_EQ(entry->step, 4);
      EXPECT_EQ(state_metadata(read_train_state(*entry)), state_metadata(testing::checkpoint_state(4)));
      model::Model model = model::Model::load(entry->dir, options(communicator));
      Optimizer optimizer(model, {}, communicator, sharding());
      EXPECT_GT(testing::wrong_values(model.layout(), optimizer.state()), 0);
      read_optimizer_state(*entry, model.layout(), optimizer.state());
      EXPECT_EQ(testing::wrong_values(model.layout(), optimizer.state()), 0);
    });
    EXPECT_EQ(errors, std::vector<std::string>(static_cast<std::size_t>(readers)));
  }
}

TEST_P(CheckpointRanks, AtOnceAndBesideTrainingTheSameBytes) {
  for (const bool async : {false, true}) {
    const auto errors = with_writers(3, async, [&](CheckpointWriter& writer, kernels::Communicator&) {
      writer.begin(testing::checkpoint_state(2));
      writer.finish();
    });
    ASSERT_EQ(errors, std::vector<std::string>(3));
    if (!async) fs::rename(at(2), at(1));
  }
  ASSERT_EQ(testing::names_in(at(2)), testing::names_in(at(1)));
  for (const std::string& name : testing::names_in(at(1)))
    EXPECT_TRUE(data::read_text(at(1) / name) == data::read_text(at(2) / name)) << name;
}

// As the loop does it: each rank has its vote, all of them act on the largest.
TEST_P(CheckpointRanks, VotesCompleteItOnEveryRankAtTheSameStep) {
  std::mutex mutex;
  std::map<int, int> completed_at;  // by rank
  const auto errors = with_writers(3, true, [&](CheckpointWriter& writer, kernels::Communicator& communicator) {
    writer.begin(testing::checkpoint_state(2));
    for (int step = 0; writer.completed() < 2; ++step) {
      if (communicator.rank() == 2 && step == 0) std::this_thread::sleep_for(std::chrono::milliseconds(20));
      double vote = writer.vote();
      communicator.all_reduce({&vote, 1}, kernels::Reduction::max, "votes");
      writer.settle(static_cast<int>(vote));
      const std::lock_guard lock(mutex);
      completed_at[communicator.rank()] = step;
    }
  });
  ASSERT_EQ(errors, std::vector<std::string>(3));
  EXPECT_EQ(completed_at[0], completed_at[1]);
  EXPECT_EQ(completed_at[0], completed_at[2]);
  EXPECT_NO_THROW(data::verify_manifest(at(2)));
}

TEST_P(CheckpointRanks, WhatFailsOnOneRankFailsOnAll) {
  for (const bool async : {false, true}) {
    SCOPED_TRACE(async ? "beside training" : "at once");
    fs::remove_all(dir() / "checkpoints");
    const auto errors = with_writers(3, async, [&](CheckpointWriter& writer, testing::ThreadCommunicator& ranks) {
      writer.begin(testing::checkpoint_state(1));
      writer.finish();
      // Something stands where rank 1 is about to write.
      ranks.after_all_reduce = [&](const std::string& what) {
        if (what == "directory of the checkpoint of step 2" && ranks.rank() == 1)
          fs::create_directory(dir() / "checkpoints/.writing-step-00000002/train_state-00002-of-00003.safetensors");
      };
      writer.begin(testing::checkpoint_state(2));
      for (double vote = 0;;) {
        vote = writer.vote();
        ranks.all_reduce({&vote, 1}, kernels::Reduction::max, "votes");
        ASSERT_NE(vote, CheckpointWriter::nothing_to_do);
        writer.settle(static_cast<int>(vote));
      }
    });
    for (const std::string& error : errors) EXPECT_EQ(error, errors.front());
    for (const char* words : {"rank 1: ", "train_state-00002-of-00003.safetensors: cannot create: File exists; ",
                              "the checkpoint of step 1 is the last complete one"})
      EXPECT_NE(errors.front().find(words), std::string::npos) << errors.front();
    EXPECT_EQ(testing::names_in(dir() / "checkpoints"), std::vector<std::string>{"step-00000001"});
    EXPECT_NO_THROW(data::verify_manifest(at(1)));
  }
}

// Ranks that see other files than rank 0 do: run.dir is on a disk of each machine.
TEST_P(CheckpointRanks, AFileThatRankZeroCannotSeeIsNotVouchedFor) {
  const auto errors = with_writers(2, true, [&](CheckpointWriter& writer, testing::ThreadCommunicator& ranks) {
    ranks.after_all_reduce = [&](const std::string& what) {
      if (what == "checkpoint of step 1" && ranks.rank() == 0)
        fs::remove(dir() / "checkpoints/.writing-step-00000001/train_state-00002-of-00002.safetensors");
    };
    writer.begin(testing::checkpoint_state(1));
    writer.finish();
  });
  EXPECT_EQ(errors[0], errors[1]);
  for (const char* words : {"train_state-00002-of-00002.safetensors", "that rank 1 wrote", "no earlier checkpoint"})
    EXPECT_NE(errors.front().find(words), std::string::npos) << errors.front();
  EXPECT_TRUE(testing::names_in(dir() / "checkpoints").empty());
}

TEST_P(CheckpointRanks, ADamagedFileIsNamedOnEveryRank) {
  ASSERT_EQ(with_writers(3, true,
                         [](CheckpointWriter& writer, kernels::Communicator&) {
                           for (const std::int64_t step : {1, 2, 3}) {
                             writer.begin(testing::checkpoint_state(step));
                             writer.finish();
                           }
                         }),
            std::vector<std::string>(3));
  const auto newest = [&](int ranks) {
    std::mutex mutex;
    std::vector<std::int64_t> steps;
    const auto errors = testing::run_ranks(ranks, [&](kernels::Communicator& communicator) {
      const auto found = newest_intact_checkpoint(dir(), communicator);
      const std::lock_guard lock(mutex);
      steps.push_back(found ? found->step : -1);
    });
    for (const std::string& error : errors) EXPECT_EQ(error, errors.front());
    if (!errors.front().empty()) return errors.front();
    for (const std::int64_t step : steps) EXPECT_EQ(step, steps.front());
    return std::to_string(steps.front());
  };
  EXPECT_EQ(newest(2), "3");
  // Each file is read by one rank only; its damage is everybody's.
  for (const char* name : {"train_state-00002-of-00003.safetensors", "model.safetensors", "config.json"}) {
    const std::string intact = data::read_text(at(3) / name);
    std::fstream(at(3) / name, std::ios::in | std::ios::out | std::ios::binary).seekp(100).put('\x7f');
    for (const int ranks : {1, 2, 3, 7}) EXPECT_EQ(newest(ranks), "2") << name << ", " << ranks << " ranks";
    std::ofstream(at(3) / name, std::ios::binary) << intact;
    EXPECT_EQ(newest(2), "3");
  }
  for (const std::int64_t step : {1, 2, 3}) fs::resize_file(at(step) / "train_state-00001-of-00003.safetensors", 9);
  const std::string none = newest(3);
  EXPECT_NE(none.find("found no intact checkpoint, expected one of the 3"), std::string::npos) << none;
  EXPECT_NE(none.find("step-00000003/train_state-00001-of-00003.safetensors: 9 bytes"), std::string::npos) << none;
}

INSTANTIATE_TEST_SUITE_P(Settings, CheckpointRanks,
                         ::testing::Values(Setting{1, kernels::DType::f32, "Zero1"},
                                           Setting{0, kernels::DType::f32, "Zero0"},
                                           Setting{1, kernels::DType::bf16, "Zero1Bf16"}),
                         [](const auto& setting) { return setting.param.name; });

}  // namespace
}  // namespace routescope::train
