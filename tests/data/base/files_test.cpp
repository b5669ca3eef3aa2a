// Files are complete or absent; checksums are those of sha256sum.
#include "data/base/files.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/data/base/expect_error.h"
#include "tests/data/base/full_disk.h"
#include "tests/data/base/temp_dir.h"

namespace routescope::data {
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

TEST_F(FilesTest, PartialNamesAreTurnedBack) {
  EXPECT_EQ(final_name(partial_name("a/b.h5")), "a/b.h5");
  EXPECT_EQ(final_name("a/b.partial"), "a/b.partial");
}

// The examples of FIPS 180-2, and a file of several pieces.
TEST_F(FilesTest, Sha256IsThatOfTheStandard) {
  const auto digest = [&](const std::string& text) {
    write_text_atomically(dir_ / "x", text);
    return sha256_file(dir_ / "x");
  };
  EXPECT_EQ(digest("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(digest(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(digest(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  expect_error([&] { sha256_file(dir_ / "absent"); }, {"absent", "No such file"});
}

}  // namespace
}  // namespace routescope::data
