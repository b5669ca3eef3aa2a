// Finding the newest intact checkpoint: every damaged byte is found, and what is damaged is ignored.
#include "train/checkpoint/checkpoint_search.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/data/base/expect_error.h"
#include "tests/train/checkpoint/checkpoints.h"
#include "train/checkpoint/checkpoint_directory.h"

namespace routescope::train {
namespace {

namespace fs = std::filesystem;
using testing::Checkpoints;

constexpr std::uint64_t kSeed = 20260613;

TEST_F(Checkpoints, AFlippedByteAnywhereIsFound) {
  constexpr int kPlaces = 1000;
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  write(*writer(false), 1);
  write(*writer(false), 2);
  const std::vector<std::string> names = testing::names_in(at(2));
  ASSERT_EQ(names.size(), 4u);
  std::mt19937_64 random(kSeed);
  int seen = 0;
  for (int i = 0; i < kPlaces; ++i) {
    // Half of the places are drawn by file, so that short files get enough of them; half are drawn by byte.
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
  EXPECT_NO_THROW(data::verify_manifest(at(2)));  // every flip was undone
}

TEST_F(Checkpoints, ACheckpointWithMissingOrCutFilesIsIgnored) {
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

TEST_F(Checkpoints, WithoutAnIntactCheckpointItIsAnErrorAndNothingChanges) {
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

TEST_F(Checkpoints, OtherDirectoriesAreNoDamagedCheckpoints) {
  for (const char* name : {"step-foo", "step-5", "step-00000005.old", "step-00000005-copy"})
    fs::create_directories(dir() / "checkpoints" / name);
  EXPECT_FALSE(newest_intact_checkpoint(dir(), *alone_));
  fs::create_directories(at(5));
  data::expect_error([&] { newest_intact_checkpoint(dir(), *alone_); }, {"expected one of the 1 to resume from"});
}

TEST_F(Checkpoints, LaterCheckpointsAreRemovedIntactOrNot) {
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

}  // namespace
}  // namespace routescope::train
