// Token shards: llm.c's layout byte by byte, streams across files, and every way in which a shard can be wrong.
#include "data/tokens/shard.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <numeric>

#include "data/base/files.h"
#include "data/tokens/shard_writer.h"
#include "tests/data/base/expect_error.h"
#include "tests/data/base/full_disk.h"
#include "tests/data/base/temp_dir.h"

namespace routescope::data {
namespace {

std::vector<std::int32_t> counting(std::int64_t count, std::int32_t from = 0, std::int32_t modulus = 1000) {
  std::vector<std::int32_t> out(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = (from + static_cast<std::int32_t>(i)) % modulus;
  return out;
}

class ShardTest : public ::testing::Test {
 protected:
  std::filesystem::path write(const std::string& name, const std::vector<std::int32_t>& tokens,
                              std::int64_t vocab_size = 1000) {
    ShardWriter writer(dir_ / name, vocab_size);
    writer.append(tokens);
    writer.finish();
    return dir_ / name;
  }
  // A file whose header says what it is told to.
  std::filesystem::path raw(const std::vector<std::int32_t>& header, std::size_t bytes) {
    std::string content(bytes, '\0');
    if (!header.empty()) std::memcpy(content.data(), header.data(), std::min(bytes, header.size() * 4));
    write_text_atomically(dir_ / "raw.bin", content);
    return dir_ / "raw.bin";
  }
  TempDir dir_;
};

TEST_F(ShardTest, HasTheLayoutOfTheFormatPage) {
  const std::string narrow = read_text(write("a.bin", {1, 256, 999}, 65536));
  ASSERT_EQ(narrow.size(), 1024u + 6);
  std::array<std::int32_t, 256> header{};
  std::memcpy(header.data(), narrow.data(), 1024);
  EXPECT_EQ(header[0], 20240520);
  EXPECT_EQ(header[1], 1);
  EXPECT_EQ(header[2], 3);
  EXPECT_EQ(std::accumulate(header.begin() + 3, header.end(), 0), 0);
  EXPECT_EQ(narrow.substr(1024), std::string("\x01\x00\x00\x01\xe7\x03", 6));

  const std::string wide = read_text(write("b.bin", {1, 65536}, 65537));
  ASSERT_EQ(wide.size(), 1024u + 8);
  std::memcpy(header.data(), wide.data(), 1024);
  EXPECT_EQ(header[0], 20240801);
  EXPECT_EQ(header[1], 7);
  EXPECT_EQ(wide.substr(1024), std::string("\x01\x00\x00\x00\x00\x00\x01\x00", 8));
}

TEST_F(ShardTest, ReadsAnyRange) {
  for (const std::int64_t vocab_size : {1000, 100000}) {
    const auto tokens = counting(5000);
    const Shard shard(write("a.bin", tokens, vocab_size));
    EXPECT_EQ(shard.bytes_per_token(), vocab_size == 1000 ? 2 : 4);
    ASSERT_EQ(shard.size(), 5000);
    for (const auto& [begin, count] : {std::pair{0, 5000}, {17, 33}, {4999, 1}, {5000, 0}}) {
      std::vector<std::int32_t> out(static_cast<std::size_t>(count));
      shard.read(begin, out);
      EXPECT_TRUE(std::equal(out.begin(), out.end(), tokens.begin() + begin));
    }
    std::vector<std::int32_t> beyond(2);
    expect_error([&] { shard.read(4999, beyond); }, {"a.bin", "4999 to 5001", "5000"});
    std::int64_t offset = 0;
    EXPECT_EQ(shard.largest_id(&offset), 999);
    EXPECT_EQ(offset, 999) << "the first of several";
  }
}

TEST_F(ShardTest, RefusesOtherFiles) {
  expect_error([&] { Shard(dir_ / "absent.bin"); }, {"absent.bin", "No such file"});
  expect_error([&] { Shard{dir_.path()}; }, {dir_.path().string(), "not a regular file"});
  expect_error([&] { Shard(raw({20240520, 1, 0}, 1023)); }, {"raw.bin", "1023 bytes", "1024"});
  expect_error([&] { Shard(raw({}, 0)); }, {"raw.bin", "0 bytes"});
  expect_error([&] { Shard(raw({20240521, 1, 2}, 1028)); }, {"raw.bin", "offset 0", "20240521", "20240520"});
  expect_error([&] { Shard(raw({20240520, 2, 2}, 1028)); }, {"raw.bin", "offset 4", "version 2", "expected 1"});
  expect_error([&] { Shard(raw({20240801, 1, 1}, 1028)); }, {"raw.bin", "offset 4", "version 1", "expected 7"});
  expect_error([&] { Shard(raw({20240520, 1, 3}, 1028)); }, {"raw.bin", "1028 bytes", "expected 1030"});
  expect_error([&] { Shard(raw({20240520, 1, 1}, 1028)); }, {"raw.bin", "1028 bytes", "expected 1026"});
  expect_error([&] { Shard(raw({20240520, 1, -1}, 1022 + 2)); }, {"raw.bin", "-1 tokens"});
  EXPECT_EQ(Shard(raw({20240520, 1, 2}, 1028)).size(), 2);
}

TEST_F(ShardTest, RefusesIdsThatNoModelHas) {
  std::string content(1024 + 8, '\0');
  const std::array<std::int32_t, 3> header{20240801, 7, 2};
  std::memcpy(content.data(), header.data(), sizeof header);
  content[1024 + 7] = '\x80';  // the second token is 2^31
  write_text_atomically(dir_ / "x.bin", content.substr(0, 1024) + std::string("\0\0\0\0\0\0\0\x80", 8));
  const Shard shard(dir_ / "x.bin");
  std::vector<std::int32_t> out(2);
  expect_error([&] { shard.read(0, out); }, {"x.bin", "token 1", "2147483648"});
}

TEST_F(ShardTest, WriterIsCompleteOrAbsent) {
  {
    ShardWriter writer(dir_ / "a.bin", 257);
    writer.append(counting(100, 0, 257));
    expect_error([&] { writer.append(std::vector<std::int32_t>{5, 257}); }, {"a.bin", "token 101", "257"});
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir_.path()));
  for (const rlim_t bytes : {0, 1000, 2000, 9000}) {
    const std::string message = on_full_disk(bytes, [&]() -> std::string {
      write("a.bin", counting(5000));
      return "written";
    });
    EXPECT_EQ(message, (dir_ / "a.bin").string() + ": cannot write: File too large") << bytes;
    EXPECT_TRUE(std::filesystem::is_empty(dir_.path())) << bytes;
  }
  expect_error([&] { ShardWriter(dir_ / "absent" / "a.bin", 257); }, {"absent/a.bin", "No such file"});
}

TEST_F(ShardTest, StreamRunsAcrossShards) {
  write("train-1.bin", counting(10, 0));
  write("train-2.bin", {});
  write("train-3.bin", counting(7, 10));
  write("valid.bin", counting(5, 17), 100000);
  const TokenStream stream({(dir_ / "train-*.bin").string(), (dir_ / "valid.bin").string()}, 1000);
  ASSERT_EQ(stream.size(), 22);
  for (std::int64_t begin = 0; begin <= 22; ++begin)
    for (std::int64_t end = begin; end <= 22; ++end) {
      std::vector<std::int32_t> out(static_cast<std::size_t>(end - begin));
      stream.read(begin, out);
      ASSERT_EQ(out, counting(end - begin, static_cast<std::int32_t>(begin))) << begin << " to " << end;
    }
  std::vector<std::int32_t> beyond(2);
  expect_error([&] { stream.read(21, beyond); }, {"21 to 23", "22"});
}

TEST_F(ShardTest, StreamChecksItsFilesAndItsVocabulary) {
  write("a.bin", counting(10));
  write("b.bin", {3, 300, 200, 300});
  expect_error([&] { TokenStream({(dir_ / "c-*.bin").string()}, 0); }, {"c-*.bin", "no such file"});
  expect_error([&] { TokenStream({(dir_ / "?.bin").string()}, 257); }, {"b.bin", "token 1", "id 300", "257"});
  expect_error([&] { TokenStream({}, 0); }, {"no token shards"});
  expect_error([&] { TokenStream({(dir_ / "b.bin").string()}, 300); }, {"id 300", "300"});
  EXPECT_EQ(TokenStream({(dir_ / "?.bin").string()}, 301).size(), 14);
  EXPECT_EQ(TokenStream({(dir_ / "?.bin").string()}, 0).size(), 14);
}

TEST_F(ShardTest, FingerprintTellsDataSetsApart) {
  const auto print = [&](const std::vector<std::string>& names) {
    std::vector<std::string> paths;
    for (const auto& name : names) paths.push_back((dir_ / name).string());
    return TokenStream(paths, 0).fingerprint();
  };
  auto tokens = counting(20000);
  write("a.bin", tokens);
  write("same.bin", tokens);
  tokens.back() = 7;
  write("other-end.bin", tokens);
  write("longer.bin", counting(20001));
  EXPECT_EQ(print({"a.bin"}), print({"same.bin"})) << "names do not matter";
  EXPECT_NE(print({"a.bin"}), print({"other-end.bin"}));
  EXPECT_NE(print({"a.bin"}), print({"longer.bin"}));
  EXPECT_NE(print({"a.bin", "longer.bin"}), print({"longer.bin", "a.bin"})) << "their order does";
  write("alike.bin", std::vector<std::int32_t>(9000, 5));
  write("one-more.bin", std::vector<std::int32_t>(9001, 5));
  EXPECT_NE(print({"alike.bin"}), print({"one-more.bin"})) << "and so does the number of tokens";
}

}  // namespace
}  // namespace routescope::data
