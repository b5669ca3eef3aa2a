// The files that users name are the files that are taken, each once.
#include "data/tokens/shard_files.h"

#include <gtest/gtest.h>

#include "data/base/files.h"
#include "data/tokens/shard.h"
#include "data/tokens/shard_writer.h"
#include "tests/data/base/expect_error.h"
#include "tests/data/base/temp_dir.h"

namespace routescope::data {
namespace {

class ShardFilesTest : public ::testing::Test {
 protected:
  std::string shard(const std::string& name) {
    std::filesystem::create_directories((dir_ / name).parent_path());
    ShardWriter writer(dir_ / name, 257);
    writer.append(std::vector<std::int32_t>{1, 2, 3});
    writer.finish();
    return (dir_ / name).string();
  }
  std::string path(const std::string& name) const { return (dir_ / name).string(); }
  std::vector<std::string> names(const std::vector<std::string>& patterns) const {
    std::vector<std::string> out, all;
    for (const std::string& pattern : patterns) all.push_back(path(pattern));
    for (const auto& file : shard_files(all)) out.push_back(file.lexically_relative(dir_.path()).string());
    return out;
  }
  TempDir dir_;
};

using Names = std::vector<std::string>;

TEST_F(ShardFilesTest, PatternsAreSorted) {
  for (const char* name : {"train-2.bin", "train-10.bin", "train-1.bin", "valid.bin", "a/x.bin", "b/x.bin", "b/y.txt"})
    shard(name);
  EXPECT_EQ(names({"valid.bin", "train-*.bin"}), (Names{"valid.bin", "train-1.bin", "train-10.bin", "train-2.bin"}));
  EXPECT_EQ(names({"train-?.bin"}), (Names{"train-1.bin", "train-2.bin"}));
  EXPECT_EQ(names({"*/x.bin"}), (Names{"a/x.bin", "b/x.bin"}));
  EXPECT_EQ(names({"[ab]/*.bin"}), (Names{"a/x.bin", "b/x.bin"}));
  for (const char* nothing : {"c-*.bin", "c.bin", "c/*.bin", "*/z.bin", "["})
    expect_error([&] { names({nothing}); }, {"no such file (nothing matches)"});
}

// A name with the characters of patterns beside the names that it matches.
TEST_F(ShardFilesTest, APathThatExistsIsThatPath) {
  for (const char* name : {"set[12]/train.bin", "set1/train.bin", "set2/train.bin", "a*.bin", "ab.bin", "what?/a-1.bin",
                           "what!/a-1.bin", "[x]/[y]/[z].bin", "x/y/z.bin", "back\\*slash.bin", "[/x.bin"})
    shard(name);
  for (const char* exact :
       {"set[12]/train.bin", "a*.bin", "what?/a-1.bin", "[x]/[y]/[z].bin", "back\\*slash.bin", "[/x.bin"})
    EXPECT_EQ(names({exact}), Names{exact});
  EXPECT_EQ(names({"set[12]/*.bin"}), Names{"set[12]/train.bin"});
  EXPECT_EQ(names({"what?/a-*.bin"}), Names{"what?/a-1.bin"});
  EXPECT_EQ(names({"set?/train.bin"}), (Names{"set1/train.bin", "set2/train.bin"}));
}

TEST_F(ShardFilesTest, EachFileOnce) {
  const std::string a = shard("a.bin"), b = shard("b.bin");
  std::filesystem::create_symlink("a.bin", dir_ / "link.bin");
  std::filesystem::create_hard_link(a, dir_ / "hard.bin");
  std::filesystem::create_directory(dir_ / "sub");
  for (const std::string again : {"a.bin", "./a.bin", "sub/../a.bin", "link.bin", "hard.bin", "[a].bin", "?.bin"})
    expect_error([&] { TokenStream({a, path(again)}, 0); }, {"a.bin", "found the same file as " + a});
  EXPECT_EQ(TokenStream({a, b}, 0).size(), 6);
}

TEST_F(ShardFilesTest, ValidationIsApartFromTraining) {
  const std::string a = shard("a.bin"), valid = shard("valid.bin");
  std::filesystem::create_symlink("valid.bin", dir_ / "link.txt");
  std::filesystem::create_hard_link(valid, dir_ / "hard.txt");
  require_apart_shards({a}, "data.train", {valid}, "data.valid");
  for (const char* pattern : {"v*.bin", "valid.bin", "link.txt", "hard.txt"})
    expect_error(
        [&] {
          require_apart_shards({a, path(pattern)}, "data.train", {valid}, "data.valid");
        },
        {"data.valid: found " + valid, "data.train"});
}

// What lies under the name of a shard and is none: a line, and no waiting.
TEST_F(ShardFilesTest, OtherThanShards) {
  std::filesystem::create_directory(dir_ / "directory");
  for (const std::string& file : {path("directory"), std::string("/dev/zero")})
    expect_error([&] { TokenStream({file}, 0); }, {file});
}

}  // namespace
}  // namespace routescope::data
