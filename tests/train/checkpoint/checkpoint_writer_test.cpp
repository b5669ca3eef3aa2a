// Writing checkpoints by one process: the same bytes at once and beside training, no incomplete checkpoint under a
// final name, and disks that are full, read-only or gone.
#include "train/checkpoint/checkpoint_writer.h"

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <optional>

#include "data/base/files.h"
#include "kernels/ops.h"
#include "tests/data/base/full_disk.h"
#include "tests/train/checkpoint/checkpoints.h"
#include "train/checkpoint/checkpoint_directory.h"
#include "train/checkpoint/checkpoint_search.h"

namespace routescope::train {
namespace {

namespace fs = std::filesystem;
using testing::Checkpoints;

TEST_F(Checkpoints, WritesTheSameBytesAtOnceAndBesideTraining) {
  const auto at_once = writer(false), beside = writer(true);
  write(*at_once, 1);
  fs::rename(at(1), at(0));
  beside->begin(state(1, 0));
  // Later changes of the arrays are not written.
  fill(model_.flat(), 0.5, {});
  kernels::fill(optimizer_.state().ranges.front().state[0], 0.5, {});
  beside->finish();
  for (const std::string& name : testing::names_in(at(0)))
    EXPECT_TRUE(data::read_text(at(0) / name) == data::read_text(at(1) / name)) << name;
  EXPECT_EQ(testing::names_in(at(1)), testing::names_in(at(0)));
  EXPECT_EQ(testing::names_in(at(1)),
            (std::vector<std::string>{"MANIFEST.json", "config.json", "model.safetensors", "train_state.safetensors"}));
}

TEST_F(Checkpoints, ACheckpointIsReadBack) {
  write(*writer(true), 8, testing::checkpoint_state(8).skipped);
  const auto entry = newest_intact_checkpoint(dir(), *alone_);
  ASSERT_TRUE(entry);
  EXPECT_EQ(entry->step, 8);
  EXPECT_EQ(state_metadata(read_train_state(*entry)), state_metadata(testing::checkpoint_state(8)));
  model::Model model = model::Model::load(entry->dir, {});
  EXPECT_EQ(kernels::host_values<float>(model.flat(), {}), kernels::host_values<float>(model_.flat(), {}));
  Optimizer optimizer(model, {}, *alone_, {});
  read_optimizer_state(*entry, model.layout(), optimizer.state());
  EXPECT_EQ(testing::wrong_values(model.layout(), optimizer.state()), 0);
}

TEST_F(Checkpoints, VotesCompleteACheckpoint) {
  const auto asynchronous = writer(true);
  EXPECT_EQ(asynchronous->vote(), CheckpointWriter::nothing_to_do);
  asynchronous->settle(CheckpointWriter::nothing_to_do);
  asynchronous->begin(testing::checkpoint_state(2));
  asynchronous->settle(CheckpointWriter::still_writing);  // another rank
  EXPECT_FALSE(fs::exists(at(2)));
  while (asynchronous->vote() == CheckpointWriter::still_writing) std::this_thread::yield();
  EXPECT_EQ(asynchronous->vote(), CheckpointWriter::part_written);
  EXPECT_FALSE(fs::exists(at(2)));
  EXPECT_EQ(asynchronous->completed(), -1);
  asynchronous->settle(CheckpointWriter::part_written);
  EXPECT_EQ(asynchronous->vote(), CheckpointWriter::nothing_to_do);
  EXPECT_EQ(asynchronous->completed(), 2);
  EXPECT_NO_THROW(data::verify_manifest(at(2)));
  EXPECT_GT(asynchronous->seconds_lost(), 0);
  // A second checkpoint waits for the first.
  asynchronous->begin(testing::checkpoint_state(3));
  asynchronous->begin(testing::checkpoint_state(4));
  EXPECT_EQ(asynchronous->completed(), 3);
  asynchronous->finish();
  EXPECT_EQ(testing::checkpoint_names(dir()),
            (std::vector<std::string>{"step-00000002", "step-00000003", "step-00000004"}));
}

TEST_F(Checkpoints, AWriterThatEndsEarlyLeavesNoIncompleteCheckpoint) {
  write(*writer(true), 1);
  writer(true)->begin(testing::checkpoint_state(2));
  EXPECT_EQ(data::list_checkpoints(dir()).size(), 1u);
  EXPECT_EQ(testing::names_in(dir() / "checkpoints"),
            (std::vector<std::string>{".writing-step-00000002", "step-00000001"}));
  EXPECT_EQ(newest_intact_checkpoint(dir(), *alone_)->step, 1);
  write(*writer(true), 2);  // over the debris
  writer(true)->begin(testing::checkpoint_state(3));
  remove_debris(dir());
  EXPECT_EQ(testing::checkpoint_names(dir()), (std::vector<std::string>{"step-00000001", "step-00000002"}));
}

TEST_F(Checkpoints, ADamagedCheckpointOfTheSameStepIsReplaced) {
  const auto synchronous = writer(false);
  write(*synchronous, 1);
  write(*synchronous, 2);
  flip(at(2) / "model.safetensors", 5000, 4);
  EXPECT_EQ(newest_intact_checkpoint(dir(), *alone_)->step, 1);
  write(*synchronous, 2);
  EXPECT_EQ(newest_intact_checkpoint(dir(), *alone_)->step, 2);
  EXPECT_EQ(testing::names_in(dir() / "checkpoints").size(), 2u);
}

TEST_F(Checkpoints, HostMemoryHoldsTheCopy) {
  const std::int64_t total = model_.layout().total();
  EXPECT_EQ(checkpoint_host_bytes(total, 2 * total, 0), static_cast<std::size_t>(12 * total));
  EXPECT_EQ(checkpoint_host_bytes(total, 2 * (total / 4), 3), static_cast<std::size_t>(2 * total));
}

class FaultyDisk : public Checkpoints, public ::testing::WithParamInterface<bool> {
 protected:
  /// What `writing` a checkpoint of step 2 says, after which that of step 1 is there and nothing else.
  void expect_failure(const std::string& message, const std::vector<std::string>& words) const {
    for (const std::string& word : words) EXPECT_NE(message.find(word), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_EQ(testing::names_in(dir() / "checkpoints"), std::vector<std::string>{"step-00000001"});
    EXPECT_NO_THROW(data::verify_manifest(at(1)));
  }
};

TEST_P(FaultyDisk, FullWhileItIsWritten) {
  write(*writer(false), 1);
  const auto model = fs::file_size(at(1) / "model.safetensors"),
             state = fs::file_size(at(1) / "train_state.safetensors");
  ASSERT_LT(model, state);
  for (const auto& [bytes, file] : {std::pair<rlim_t, std::string>{100, "config.json"},
                                    {model - 1, "model.safetensors"},
                                    {state - 1, "train_state.safetensors"}}) {
    const std::string message = data::on_full_disk(bytes, [&]() -> std::string {
      const auto writing = writer(GetParam());
      writing->begin(testing::checkpoint_state(2));
      while (writing->vote() == CheckpointWriter::still_writing) std::this_thread::yield();
      writing->settle(writing->vote());
      return "written";
    });
    expect_failure(message,
                   {file + ": cannot write: File too large", "; the checkpoint of step 1 is the last complete"});
  }
}

TEST_P(FaultyDisk, TakenAwayWhileItIsWritten) {
  write(*writer(false), 1);
  const auto writing = writer(GetParam());
  // The directory of the one that is being written; at once, there is no moment in between.
  if (GetParam()) {
    writing->begin(testing::checkpoint_state(2));
    fs::remove_all(dir() / "checkpoints" / ".writing-step-00000002");
    // The system says so of a file that is to be written ("No such file"), the program of one that was.
    expect_failure(error_of([&] { writing->finish(); }),
                   {".writing-step-00000002", "o such file", "step 1 is the last"});
    EXPECT_EQ(writing->vote(), CheckpointWriter::nothing_to_do);
  }
  // All checkpoints: the next one is written all the same.
  fs::remove_all(dir() / "checkpoints");
  write(*writing, 3);
  EXPECT_EQ(testing::checkpoint_names(dir()), std::vector<std::string>{"step-00000003"});
  // The run with its record.
  fs::remove_all(dir());
  const std::string gone = error_of([&] { write(*writing, 4); });
  EXPECT_NE(gone.find("No such file"), std::string::npos) << gone;
  EXPECT_NE(gone.find("no earlier checkpoint is there"), std::string::npos) << gone;
  EXPECT_FALSE(fs::exists(dir()));
}

/// A file system of its own, of so many bytes. Only root can have one.
class SmallDisk {
 public:
  SmallDisk(const fs::path& at, std::size_t bytes) : at_(at) {
    fs::create_directories(at);
    mounted_ = ::mount("tmpfs", at.c_str(), "tmpfs", 0, fmt::format("size={}", bytes).c_str()) == 0;
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(at_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mounted() const { return mounted_; }
  bool set_read_only(bool read_only) const {
    return ::mount("tmpfs", at_.c_str(), "tmpfs", MS_REMOUNT | (read_only ? MS_RDONLY : 0), nullptr) == 0;
  }

 private:
  fs::path at_;
  bool mounted_;
};

TEST_P(FaultyDisk, WithoutSpace) {
  const std::size_t one = checkpoint_host_bytes(model_.layout().total(), 2 * model_.layout().total(), 0);
  const SmallDisk disk(dir() / "checkpoints", one * 3 / 2);
  if (!disk.mounted()) GTEST_SKIP() << "only root can mount a small file system";
  const auto writing = writer(GetParam());
  write(*writing, 1);
  const std::string message = error_of([&] { write(*writing, 2); });
  expect_failure(message,
                 {".writing-step-00000002/", "cannot write: No space left on device", "step 1 is the last complete"});
  fs::remove_all(at(1));
  write(*writing, 3);  // with space again
  EXPECT_NO_THROW(data::verify_manifest(at(3)));
}

TEST_P(FaultyDisk, ReadOnly) {
  fs::create_directories(dir() / "checkpoints");
  // Permissions do not hold root back.
  const bool root = ::geteuid() == 0;
  std::optional<SmallDisk> disk;
  if (root) disk.emplace(dir() / "checkpoints", std::size_t{1} << 24);
  if (root && !disk->mounted()) GTEST_SKIP() << "root without the right to mount";
  const auto set_read_only = [&](bool on) {
    if (root) return disk->set_read_only(on);
    fs::permissions(dir() / "checkpoints", on ? fs::perms::owner_read | fs::perms::owner_exec : fs::perms::owner_all);
    return true;
  };
  const auto writing = writer(GetParam());
  write(*writing, 1);
  ASSERT_TRUE(set_read_only(true));
  const std::string message = error_of([&] { write(*writing, 2); });
  expect_failure(message, {".writing-step-00000002: cannot be made: ",
                           root ? "Read-only file system" : "Permission denied", "step 1 is the last complete"});
  ASSERT_TRUE(set_read_only(false));
  write(*writing, 2);
  EXPECT_NO_THROW(data::verify_manifest(at(2)));
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, FaultyDisk, ::testing::Bool(),
                         [](const auto& at) { return at.param ? "BesideTraining" : "AtOnce"; });

}  // namespace
}  // namespace routescope::train
