// A manifest notices every change, in any file and in itself. A file with another content than was written is noticed
// before a manifest lists it.
#include "data/base/manifest.h"

#include <gtest/gtest.h>

#include <fstream>
#include <regex>

#include "data/base/files.h"
#include "data/base/sha256.h"
#include "data/base/verified_file.h"
#include "tests/data/base/expect_error.h"
#include "tests/data/base/full_disk.h"
#include "tests/data/base/temp_dir.h"

namespace routescope::data {
namespace {

class ManifestTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(checkpoint_);
    write_text_atomically(checkpoint_ / "model.safetensors", std::string(5000, 'w'));
    write_text_atomically(checkpoint_ / "config.json", "{}\n");
    write_manifest(checkpoint_);
  }
  std::filesystem::path manifest() const { return checkpoint_ / "MANIFEST.json"; }
  TempDir dir_;
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

TEST_F(ManifestTest, AModelIsVerifiedWithoutTheStateOfTheRun) {
  write_text_atomically(checkpoint_ / "train_state-00001-of-00002.safetensors", "a state");
  write_manifest(checkpoint_);
  std::filesystem::remove(checkpoint_ / "train_state-00001-of-00002.safetensors");
  EXPECT_NO_THROW(verify_model(checkpoint_));
  EXPECT_THROW(verify_manifest(checkpoint_), Error);
  write_text_atomically(checkpoint_ / "model.safetensors", std::string(5000, 'W'));
  expect_error([&] { verify_model(checkpoint_); }, {"model.safetensors", "SHA-256", "expected"});
}

TEST_F(ManifestTest, NoticesEveryFlippedBitInItself) {
  const std::string intact = read_text(manifest());
  std::fstream file(manifest(), std::ios::in | std::ios::out | std::ios::binary);
  const auto put = [&file](std::size_t at, int byte) {
    file.seekp(static_cast<std::streamoff>(at));
    file.put(static_cast<char>(byte)).flush();
  };
  for (std::size_t at = 0; at < intact.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      put(at, intact[at] ^ (1 << bit));
      EXPECT_THROW(list_manifest(checkpoint_), Error) << "byte " << at << " bit " << bit;
    }
    put(at, intact[at]);
  }
  EXPECT_EQ(list_manifest(checkpoint_).size(), 2u);  // all of them were turned back
}

// As data/formats/checkpoint.md says it.
TEST_F(ManifestTest, ItsChecksumIsOfItsTextWithZerosInPlaceOfIt) {
  std::string text = read_text(manifest());
  std::smatch match;
  ASSERT_TRUE(std::regex_search(text, match, std::regex("\n  \"sha256\": \"([0-9a-f]{64})\"")));
  const std::string found = match[1];
  EXPECT_EQ(sha256_text(text.replace(static_cast<std::size_t>(match.position(1)), 64, 64, '0')), found);
}

TEST_F(ManifestTest, NoticesOtherSizeAndMissingFiles) {
  std::filesystem::resize_file(checkpoint_ / "config.json", 2);
  expect_error([&] { verify_manifest(checkpoint_); }, {"config.json", "2 bytes", "expected 3"});
  std::filesystem::remove(checkpoint_ / "config.json");
  expect_error([&] { verify_manifest(checkpoint_); }, {"config.json", "no such file"});
  std::filesystem::remove(manifest());
  expect_error([&] { verify_manifest(checkpoint_); }, {"MANIFEST.json", "incomplete"});
}

TEST_F(ManifestTest, NoticesBrokenManifests) {
  for (const std::string text :
       {"", "{", "[]", "{\"version\": 1}", "{\"version\": \"1\", \"files\": {}}", "{\"version\": 1, \"files\": {}}",
        "{\"version\": 1, \"files\": {\"a\": {\"bytes\": -1}}}", "{\"version\": 2, \"files\": {}}",
        "{\"version\": 2, \"files\": {}, \"sha256\": \"\"}",
        "{\"version\": 1, \"files\": {\"../a\": {\"bytes\": 1, \"sha256\": \"00\"}}}"}) {
    write_text_atomically(manifest(), text);
    expect_error([&] { verify_manifest(checkpoint_); }, {"MANIFEST.json", "not a manifest"});
  }
  for (const std::string text :
       {"{\"version\": 3, \"files\": {}}", "{\"version\": 1, \"files\": {}, \"sha256\": \"\"}"}) {
    write_text_atomically(manifest(), text);
    expect_error([&] { verify_manifest(checkpoint_); }, {"MANIFEST.json", "version", "expected 2"});
  }
  std::filesystem::create_directories(dir_ / "empty");
  expect_error([&] { write_manifest(dir_ / "empty"); }, {"empty", "no file"});
}

// Of what a reader of checkpoints takes, nothing lies beside the manifest without its checksum.
TEST_F(ManifestTest, CoversEveryFileOfACheckpoint) {
  write_text_atomically(checkpoint_ / "notes.txt", "a user's own");
  write_text_atomically(checkpoint_ / "tokenizer.json", "a user's own");
  EXPECT_EQ(list_manifest(checkpoint_).size(), 2u);
  for (const char* name : {"train_state.safetensors", "train_state-00001-of-00002.safetensors",
                           "model-00001-of-00002.safetensors", "model.safetensors.index.json"}) {
    write_text_atomically(checkpoint_ / name, "added");
    expect_error([&] { verify_manifest(checkpoint_); }, {"MANIFEST.json: found " + std::string(name) + " beside it"});
    std::filesystem::remove(checkpoint_ / name);
  }
  const std::string config =
      fmt::format("{{\"config.json\": {{\"bytes\": 3, \"sha256\": \"{}\"}}}}", sha256_text("{}\n"));
  write_text_atomically(manifest(), "{\"version\": 1, \"files\": " + config + "}");
  expect_error([&] { verify_manifest(checkpoint_); }, {"MANIFEST.json: found model.safetensors beside it"});
}

TEST_F(ManifestTest, ReadsTheFirstVersion) {
  std::filesystem::remove(checkpoint_ / "model.safetensors");
  write_text_atomically(manifest(),
                        fmt::format("{{\"version\": 1, \"files\": {{\"config.json\": {{\"bytes\": 3, \"sha256\": "
                                    "\"{}\"}}}}}}",
                                    sha256_text("{}\n")));
  verify_manifest(checkpoint_);
  write_text_atomically(checkpoint_ / "config.json", "[]\n");
  expect_error([&] { verify_manifest(checkpoint_); }, {"config.json", "SHA-256"});
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

TEST(VerifiedFileTest, ReturnsSizeAndChecksum) {
  const TempDir dir;
  VerifiedFile file(dir / "x");
  file.append("ab", 2);
  file.append("c", 1);
  const ManifestEntry written = file.finish();
  EXPECT_EQ(written.name, "x");
  EXPECT_EQ(written.bytes, 3u);
  EXPECT_EQ(written.sha256, sha256_text("abc"));
  EXPECT_EQ(read_text(dir / "x"), "abc");
  expect_error([&] { VerifiedFile again(dir / "x"); }, {"x: cannot create", "File exists"});
  expect_error([&] { VerifiedFile nowhere(dir / "no" / "y"); }, {"no/y: cannot create", "No such file"});
}

// A disk that keeps something else than it was given: another byte, or less.
TEST(VerifiedFileTest, NoticesAnotherContentWhenItReadsBack) {
  const TempDir dir;
  for (const bool shorter : {false, true}) {
    const auto path = dir / (shorter ? "shorter" : "other");
    VerifiedFile file(path);
    const std::string text(100000, 'w');
    file.append(text.data(), text.size());
    if (shorter)
      std::filesystem::resize_file(path, 99999);
    else
      std::fstream(path, std::ios::in | std::ios::out | std::ios::binary).seekp(70000).put('W');
    expect_error([&] { file.finish(); }, {path.string(), "expected", "(what was written)"});
  }
}

TEST(VerifiedFileTest, ReportsAFullDisk) {
  const TempDir dir;
  const std::string message = on_full_disk(1000, [&]() -> std::string {
    VerifiedFile file(dir / "x");
    const std::string text(5000, 'x');
    file.append(text.data(), text.size());
    return "written";
  });
  EXPECT_EQ(message, (dir / "x").string() + ": cannot write: File too large");
}

}  // namespace
}  // namespace routescope::data
