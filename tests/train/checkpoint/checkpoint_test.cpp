// Writing checkpoints by one process: the same bytes at once and beside training, nothing half-written under a final
// name, disks that are full, read-only or gone, every damaged byte seen, and never without an intact one.
#include "train/checkpoint/checkpoint.h"

#include <gtest/gtest.h>
#include <omp.h>
#include <sys/mount.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <random>
#include <thread>

#include "data/base/error.h"
#include "data/base/files.h"
#include "kernels/ops.h"
#include "tests/data/base/expect_error.h"
#include "tests/data/base/full_disk.h"
#include "tests/train/checkpoint/checkpoint_case.h"
#include "tests/train/run/micro_run.h"

namespace routescope::train {
namespace {

namespace fs = std::filesystem;
using testing::checkpoint_model;
using testing::checkpoint_names;
using testing::checkpoint_state;
using testing::names_in;

/// A model with moments, and writers of it into one run directory.
class Checkpoints : public ::testing::Test {
 protected:
  explicit Checkpoints(const model::ModelConfig& config = testing::checkpoint_model()) : model_(config, {}) {
    omp_set_num_threads(1);  // processes that are forked here have no pool of threads
    model_.initialize(3);
    testing::set_moments(model_.layout(), optimizer_.ranges());
  }
  std::unique_ptr<CheckpointWriter> writer(bool async, std::int64_t keep = 0, std::int64_t intact = -1) {
    return std::make_unique<CheckpointWriter>(
        dir(), model_, optimizer_, *alone_, CheckpointWriter::Options{.async = async, .keep = keep, .intact = intact});
  }
  /// As steps go by, until older checkpoints were read and some of them removed.
  void settle_until(CheckpointWriter& writer, const std::vector<std::string>& names) const {
    for (int i = 0; i < 1000 && testing::checkpoint_names(dir()) != names; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      writer.settle(CheckpointWriter::nothing_to_do);
    }
    EXPECT_EQ(testing::checkpoint_names(dir()), names);
  }
  static TrainState state(std::int64_t step, std::int64_t skipped) {
    TrainState out = testing::checkpoint_state(step);
    out.skipped = skipped;
    return out;
  }
  void write(CheckpointWriter& writer, std::int64_t step, std::int64_t skipped = 0) {
    writer.begin(state(step, skipped));
    writer.finish();
    EXPECT_EQ(writer.completed(), step);
  }
  fs::path dir() const { return directory_.path(); }
  fs::path at(std::int64_t step) const { return data::checkpoint_dir(dir(), step); }
  static void flip(const fs::path& file, std::uintmax_t at, int mask) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(static_cast<std::streamoff>(at));
    const auto byte = static_cast<char>(stream.get() ^ mask);
    stream.seekp(static_cast<std::streamoff>(at));
    stream.put(byte);
  }
  static std::string error_of(const std::function<void()>& body) {
    try {
      body();
    } catch (const data::Error& error) {
      return error.what();
    }
    return "no error";
  }

  testing::TemporaryDirectory directory_;
  std::unique_ptr<kernels::Communicator> alone_ = kernels::single_communicator();
  model::Model model_;
  AdamW optimizer_{model_, {}, *alone_, {}};
};

TEST_F(Checkpoints, AtOnceAndBesideTrainingTheSameBytes) {
  const auto at_once = writer(false), beside = writer(true);
  write(*at_once, 1);
  fs::rename(at(1), at(0));
  beside->begin(state(1, 0));
  // What training does to the arrays meanwhile is not what is written.
  fill(model_.flat(), 0.5, {});
  kernels::fill(optimizer_.ranges().front().exp_avg, 0.5, {});
  beside->finish();
  for (const std::string& name : testing::names_in(at(0)))
    EXPECT_TRUE(data::read_text(at(0) / name) == data::read_text(at(1) / name)) << name;
  EXPECT_EQ(testing::names_in(at(1)), testing::names_in(at(0)));
  EXPECT_EQ(testing::names_in(at(1)),
            (std::vector<std::string>{"MANIFEST.json", "config.json", "model.safetensors", "train_state.safetensors"}));
}

TEST_F(Checkpoints, WhatIsWrittenIsReadBack) {
  write(*writer(true), 8, testing::checkpoint_state(8).skipped);
  const auto entry = newest_intact_checkpoint(dir(), *alone_);
  ASSERT_TRUE(entry);
  EXPECT_EQ(entry->step, 8);
  EXPECT_EQ(state_metadata(read_train_state(*entry)), state_metadata(testing::checkpoint_state(8)));
  model::Model model = model::Model::load(entry->dir, {});
  EXPECT_EQ(kernels::host_values<float>(model.flat(), {}), kernels::host_values<float>(model_.flat(), {}));
  AdamW optimizer(model, {}, *alone_, {});
  read_moments(*entry, model, optimizer);
  EXPECT_EQ(testing::wrong_moments(model.layout(), optimizer.ranges()), 0);
}

TEST_F(Checkpoints, VotesLeadToACompleteOne) {
  const auto asynchronous = writer(true);
  EXPECT_EQ(asynchronous->vote(), CheckpointWriter::nothing_to_do);
  asynchronous->settle(CheckpointWriter::nothing_to_do);
  asynchronous->begin(testing::checkpoint_state(2));
  asynchronous->settle(CheckpointWriter::still_writing);  // some rank is
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
  // One that comes while another is under way waits for it.
  asynchronous->begin(testing::checkpoint_state(3));
  asynchronous->begin(testing::checkpoint_state(4));
  EXPECT_EQ(asynchronous->completed(), 3);
  asynchronous->finish();
  EXPECT_EQ(testing::checkpoint_names(dir()),
            (std::vector<std::string>{"step-00000002", "step-00000003", "step-00000004"}));
}

TEST_F(Checkpoints, AWriterThatEndsMidwayLeavesNothingUnderAFinalName) {
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

TEST_F(Checkpoints, ABrokenOneOfTheSameStepIsReplaced) {
  const auto synchronous = writer(false);
  write(*synchronous, 1);
  write(*synchronous, 2);
  flip(at(2) / "model.safetensors", 5000, 4);
  EXPECT_EQ(newest_intact_checkpoint(dir(), *alone_)->step, 1);
  write(*synchronous, 2);
  EXPECT_EQ(newest_intact_checkpoint(dir(), *alone_)->step, 2);
  EXPECT_EQ(testing::names_in(dir() / "checkpoints").size(), 2u);
}

TEST_F(Checkpoints, HostMemoryIsWhatIsCopied) {
  const std::int64_t total = model_.layout().total();
  EXPECT_EQ(checkpoint_host_bytes(total, total, 0), static_cast<std::size_t>(12 * total));
  EXPECT_EQ(checkpoint_host_bytes(total, total / 4, 3), static_cast<std::size_t>(2 * total));
}

// ---- what breaks ----

constexpr std::uint64_t kSeed = 20260613;

TEST_F(Checkpoints, AFlippedByteAnywhereIsSeen) {
  constexpr int kPlaces = 1000;
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  write(*writer(false), 1);
  write(*writer(false), 2);
  const std::vector<std::string> names = testing::names_in(at(2));
  ASSERT_EQ(names.size(), 4u);
  std::mt19937_64 random(kSeed);
  int seen = 0;
  for (int i = 0; i < kPlaces; ++i) {
    // Half of the places by file, so that the short ones have their share, half by byte.
    std::size_t file = random() % names.size();
    if (i % 2 == 0) file = names[file].ends_with("json") ? file : static_cast<std::size_t>(i / 2) % 2;
    const fs::path path = at(2) / names[file];
    const std::uintmax_t place = random() % fs::file_size(path);
    const int mask = static_cast<int>(random() % 255) + 1;
    flip(path, place, mask);
    const std::string found = error_of([&] { data::verify_manifest(at(2)); });
    if (found.find(names[file]) != std::string::npos)
      ++seen;
    else
      ADD_FAILURE() << names[file] << ", byte " << place << " ^ " << mask << ": " << found;
    if (i % 50 == 0) {
      EXPECT_EQ(newest_intact_checkpoint(dir(), *alone_)->step, 1);
    }
    flip(path, place, mask);
  }
  EXPECT_EQ(seen, kPlaces);
  EXPECT_NO_THROW(data::verify_manifest(at(2)));  // all of them were turned back
}

TEST_F(Checkpoints, LackingFilesAndCutManifestsArePassedOver) {
  const auto damaged = [this](const std::function<void(const fs::path&)>& damage) {
    write(*writer(false), 1);
    write(*writer(false), 2);
    damage(at(2));
    const auto found = newest_intact_checkpoint(dir(), *alone_);
    return found ? found->step : -1;
  };
  for (const std::string name : {"MANIFEST.json", "config.json", "model.safetensors", "train_state.safetensors"}) {
    SCOPED_TRACE(name);
    EXPECT_EQ(damaged([&](const fs::path& at) { fs::remove(at / name); }), 1);
    EXPECT_EQ(damaged([&](const fs::path& at) { fs::resize_file(at / name, 0); }), 1);
    EXPECT_EQ(damaged([&](const fs::path& at) { fs::resize_file(at / name, fs::file_size(at / name) - 1); }), 1);
    EXPECT_EQ(damaged([&](const fs::path& at) { fs::resize_file(at / name, fs::file_size(at / name) + 1); }), 1);
  }
  EXPECT_EQ(damaged([](const fs::path&) {}), 2);
}

TEST_F(Checkpoints, NoneIntactIsAnErrorAndNothingIsTouched) {
  EXPECT_FALSE(newest_intact_checkpoint(dir(), *alone_));
  write(*writer(false), 1);
  write(*writer(false), 2);
  flip(at(1) / "config.json", 3, 1);
  fs::remove(at(2) / "MANIFEST.json");
  const std::vector<std::string> before = testing::names_in(dir() / "checkpoints");
  data::expect_error([&] { newest_intact_checkpoint(dir(), *alone_); },
                     {"checkpoints: found no intact checkpoint, expected one of the 2", "config.json"});
  EXPECT_EQ(testing::names_in(dir() / "checkpoints"), before);
}

TEST_F(Checkpoints, OnlyACheckpointsNameMakesADamagedOne) {
  for (const char* name : {"step-foo", "step-5", "step-00000005.old", "step-00000005-copy"})
    fs::create_directories(dir() / "checkpoints" / name);
  EXPECT_FALSE(newest_intact_checkpoint(dir(), *alone_));
  fs::create_directories(at(5));
  data::expect_error([&] { newest_intact_checkpoint(dir(), *alone_); }, {"expected one of the 1 that are there"});
}

TEST_F(Checkpoints, LaterOnesAreRemovedWhateverTheirState) {
  remove_checkpoints_after(dir(), 0);  // none is there
  const auto synchronous = writer(false);
  for (const std::int64_t step : {1, 2, 3, 4, 5}) write(*synchronous, step);
  fs::remove(at(1) / "MANIFEST.json");
  flip(at(4) / "model.safetensors", 4000, 1);
  fs::remove(at(5) / "MANIFEST.json");
  fs::create_directories(dir() / "checkpoints/step-00000009.mine");
  remove_checkpoints_after(dir(), 2);
  EXPECT_EQ(testing::names_in(dir() / "checkpoints"),
            (std::vector<std::string>{"step-00000001", "step-00000002", "step-00000009.mine"}));
}

TEST_F(Checkpoints, KeepCountsIntactOnes) {
  const auto keeping = writer(true, 2);
  for (const std::int64_t step : {1, 2, 3}) write(*keeping, step);
  EXPECT_EQ(testing::checkpoint_names(dir()), (std::vector<std::string>{"step-00000002", "step-00000003"}));
  write(*writer(false), 4);
  write(*writer(false), 9);
  flip(at(3) / "model.safetensors", 4000, 1);
  flip(at(4) / "train_state.safetensors", 4000, 1);
  flip(at(9) / "model.safetensors", 4000, 1);
  // A run that went back behind damaged ones: they neither count nor does a newer one drive out what is intact.
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

TEST_F(Checkpoints, OlderOnesAreReadBeforeOthersGo) {
  const auto synchronous = writer(false);
  for (const std::int64_t step : {1, 2, 3, 4}) write(*synchronous, step);
  flip(at(3) / "model.safetensors", 4000, 1);
  flip(at(4) / "train_state.safetensors", 4000, 1);
  const auto resumed = writer(true, 2);
  write(*resumed, 5);
  settle_until(*resumed, {"step-00000002", "step-00000003", "step-00000004", "step-00000005"});
  // Of one that was read at the start this is known.
  const auto informed = writer(true, 2, 5);
  write(*informed, 6);
  EXPECT_EQ(testing::checkpoint_names(dir()), (std::vector<std::string>{"step-00000005", "step-00000006"}));
}

TEST_F(Checkpoints, OnesAmidStepsThatWereLeftOutDoNotCount) {
  const auto keeping = writer(true, 1);
  write(*keeping, 1);
  write(*keeping, 2, 1);
  write(*keeping, 3, 2);
  const std::vector<std::string> all{"step-00000001", "step-00000002", "step-00000003"};
  EXPECT_EQ(testing::checkpoint_names(dir()), all);
  // Nor when another process takes the run up from there.
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

// Half a minute of reading, or more.
TEST_F(Checkpoints, NothingWaitsUntilOlderOnesAreRead) {
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
    expect_failure(error_of([&] { writing->finish(); }),
                   {".writing-step-00000002", "No such file", "step 1 is the last"});
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
  const std::size_t one = checkpoint_host_bytes(model_.layout().total(), model_.layout().total(), 0);
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
