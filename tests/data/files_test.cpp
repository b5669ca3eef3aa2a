// Files are complete or absent; checksums are those of sha256sum; manifests notice whatever changed.
#include "data/files.h"

#include <gtest/gtest.h>

#include <fstream>

#include "data/manifest.h"
#include "tests/data/expect_error.h"
#include "tests/data/full_disk.h"
#include "tests/data/temp_dir.h"

namespace routescope {
namespace {

class FilesTest : public ::testing::Test {
 protected:
  std::size_t entries() const {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) count += entry.exists() ? 1 : 0;
    return count;
  }
  TempDir dir_;
};

TEST_F(FilesTest, WritesAndReplaces) {
  const auto file = dir_ / "x.txt";
  write_text_atomically(file, "one\n");
  write_text_atomically(file, "two\n");
  EXPECT_EQ(read_text(file), "two\n");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(FilesTest, FailureLeavesTheOldFileAndNothingElse) {
  const auto file = dir_ / "x.txt";
  write_text_atomically(file, "old");
  const auto half_way = [](const std::filesystem::path& partial) {
    std::ofstream(partial) << "half of";
    throw Error("gave up");
  };
  expect_error([&] { write_atomically(file, half_way); }, {"gave up"});
  EXPECT_EQ(read_text(file), "old");
  EXPECT_EQ(entries(), 1u);
  expect_error([&] { write_text_atomically(dir_ / "absent" / "x", "text"); }, {"absent/x:", "No such file"});
  const std::string message = on_full_disk(1000, [&]() -> std::string {
    write_text_atomically(file, std::string(5000, 'x'));
    return "written";
  });
  EXPECT_EQ(message, file.string() + ": cannot write: File too large");
  EXPECT_EQ(read_text(file), "old");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(FilesTest, WritesIntoTheCurrentDirectory) {
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(dir_.path());
  write_text_atomically("bare-name", "text");
  std::filesystem::current_path(before);
  EXPECT_EQ(read_text(dir_ / "bare-name"), "text");
}

TEST_F(FilesTest, NamesAreTurnedBack) {
  EXPECT_EQ(final_name(partial_name("a/b.h5")), "a/b.h5");
  EXPECT_EQ(final_name("a/b.partial"), "a/b.partial");
}

// The examples of FIPS 180-2, and a file of several pieces.
TEST_F(FilesTest, Sha256IsTheStandardOne) {
  const auto digest = [&](const std::string& text) {
    write_text_atomically(dir_ / "x", text);
    return sha256_file(dir_ / "x");
  };
  EXPECT_EQ(digest("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(digest(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(digest(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  expect_error([&] { sha256_file(dir_ / "absent"); }, {"absent", "No such file"});
}

class ManifestTest : public FilesTest {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(checkpoint_);
    write_text_atomically(checkpoint_ / "model.safetensors", std::string(5000, 'w'));
    write_text_atomically(checkpoint_ / "config.json", "{}\n");
    write_manifest(checkpoint_);
  }
  std::filesystem::path checkpoint_ = checkpoint_dir(dir_.path(), 1000);
};

TEST_F(ManifestTest, AcceptsWhatItListed) {
  EXPECT_EQ(checkpoint_.filename(), "step-00001000");
  verify_manifest(checkpoint_);
  const auto listed = list_manifest(checkpoint_);
  ASSERT_EQ(listed.size(), 2u);
  EXPECT_EQ(listed[1].name, "model.safetensors");
  EXPECT_EQ(listed[1].bytes, 5000u);
}

TEST_F(ManifestTest, NoticesFlippedByte) {
  std::fstream file(checkpoint_ / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(4321);
  file.put('W');
  file.close();
  expect_error([&] { verify_manifest(checkpoint_); }, {"model.safetensors", "SHA-256", "expected"});
}

TEST_F(ManifestTest, NoticesOtherSizeAndMissingFiles) {
  std::filesystem::resize_file(checkpoint_ / "config.json", 2);
  expect_error([&] { verify_manifest(checkpoint_); }, {"config.json", "2 bytes", "expected 3"});
  std::filesystem::remove(checkpoint_ / "config.json");
  expect_error([&] { verify_manifest(checkpoint_); }, {"config.json", "no such file"});
  std::filesystem::remove(checkpoint_ / "MANIFEST.json");
  expect_error([&] { verify_manifest(checkpoint_); }, {"MANIFEST.json", "incomplete"});
}

TEST_F(ManifestTest, NoticesBrokenManifests) {
  for (const std::string text : {"", "{", "[]", "{\"version\": 1}", "{\"version\": \"1\", \"files\": {}}",
                                 "{\"version\": 1, \"files\": {\"a\": {\"bytes\": -1}}}"}) {
    write_text_atomically(checkpoint_ / "MANIFEST.json", text);
    expect_error([&] { verify_manifest(checkpoint_); }, {"MANIFEST.json", "not a manifest"});
  }
  write_text_atomically(checkpoint_ / "MANIFEST.json", "{\"version\": 2, \"files\": {}}");
  expect_error([&] { verify_manifest(checkpoint_); }, {"MANIFEST.json", "version 2", "expected 1"});
  std::filesystem::create_directories(dir_ / "empty");
  expect_error([&] { write_manifest(dir_ / "empty"); }, {"empty", "no file"});
}

TEST_F(ManifestTest, ListsOnlyCompleteCheckpoints) {
  for (const std::int64_t step : {0, 64, 123456789}) {
    std::filesystem::create_directories(checkpoint_dir(dir_.path(), step));
    write_text_atomically(checkpoint_dir(dir_.path(), step) / "config.json", "{}");
    write_manifest(checkpoint_dir(dir_.path(), step));
  }
  const auto root = dir_ / "checkpoints";
  std::filesystem::create_directories(root / "step-00000007");  // no manifest
  std::filesystem::copy(checkpoint_, root / "step-00001000.123.partial", std::filesystem::copy_options::recursive);
  std::filesystem::copy(checkpoint_, root / "step-9", std::filesystem::copy_options::recursive);
  std::filesystem::copy(checkpoint_, root / "best", std::filesystem::copy_options::recursive);
  std::vector<std::int64_t> steps;
  for (const auto& entry : list_checkpoints(dir_.path())) steps.push_back(entry.step);
  EXPECT_EQ(steps, (std::vector<std::int64_t>{0, 64, 1000, 123456789}));
  EXPECT_TRUE(list_checkpoints(dir_ / "absent").empty());
}

}  // namespace
}  // namespace routescope
