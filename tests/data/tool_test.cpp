// routescope-data from the outside: its files, its output, its exit status.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <zlib.h>

#include <cstdio>
#include <fstream>

#include "data/base/error.h"
#include "data/base/files.h"
#include "data/base/manifest.h"
#include "data/hdf5/file.h"
#include "data/tokens/shard.h"
#include "data/tokens/tokenize.h"
#include "data/tokens/tokenizer.h"
#include "tests/data/base/expect_error.h"
#include "tests/data/base/temp_dir.h"
#include "tests/data/records/routing_fixture.h"
#include "tests/places.h"

namespace routescope::data {
namespace {

struct Ran {
  int status;
  std::string output;  // standard output and standard error
};

Ran run(const std::string& arguments) {
  const std::string command = testing::bin_dir() + "/routescope-data " + arguments + " 2>&1";
  std::FILE* pipe = ::popen(command.c_str(), "r");
  Ran out{-1, ""};
  std::array<char, 4096> piece{};
  while (const std::size_t count = std::fread(piece.data(), 1, piece.size(), pipe))
    out.output.append(piece.data(), count);
  out.status = WEXITSTATUS(::pclose(pipe));
  return out;
}

std::vector<std::int32_t> tokens_of(const std::filesystem::path& file) {
  const Shard shard(file);
  std::vector<std::int32_t> out(static_cast<std::size_t>(shard.size()));
  shard.read(0, out);
  return out;
}

std::vector<std::int32_t> encoded(const std::vector<std::string>& documents) {
  std::vector<std::int32_t> out;
  for (const std::string& text : documents) {
    byte_tokenizer::encode(text, out);
    out.push_back(byte_tokenizer::end_of_document);
  }
  return out;
}

class ToolTest : public ::testing::Test {
 protected:
  std::string text_file(const std::string& name, const std::string& text) {
    write_text_atomically(dir_ / name, text);
    return (dir_ / name).string();
  }
  std::string gzip_file(const std::string& name, const std::string& text) {
    gzFile out = ::gzopen((dir_ / name).c_str(), "wb");
    ::gzwrite(out, text.data(), static_cast<unsigned>(text.size()));
    ::gzclose(out);
    return (dir_ / name).string();
  }
  std::string path(const std::string& name) const { return (dir_ / name).string(); }
  // One line of the tool's own on standard error, and the exit status.
  void expect_failure(const std::string& arguments, int status, const std::vector<std::string>& parts) {
    const Ran ran = run(arguments);
    EXPECT_EQ(ran.status, status) << arguments << "\n" << ran.output;
    EXPECT_EQ(ran.output.find("routescope-data: error: "), 0u) << ran.output;
    EXPECT_EQ(ran.output.find('\n'), ran.output.size() - 1) << ran.output;
    for (const std::string& part : parts) EXPECT_NE(ran.output.find(part), std::string::npos) << ran.output;
  }
  TempDir dir_;
};

TEST_F(ToolTest, TokenizesDocuments) {
  const std::string large(1000003, 'z');  // more than one piece
  const std::string a = text_file("a.txt", "Größe\n\n"), b = gzip_file("b.gz", "in gzip"),
                    c = text_file("c.txt", large);
  const Ran ran = run("tokenize --input " + a + " " + b + " --input " + c + " --output " + path("o.bin"));
  EXPECT_EQ(ran.status, 0) << ran.output;
  EXPECT_EQ(ran.output, path("o.bin") + ": 1000022 tokens of 3 documents\n");
  EXPECT_EQ(tokens_of(dir_ / "o.bin"), encoded({"Größe\n\n", "in gzip", large}));
}

TEST_F(ToolTest, HoldsOutTheEndOfEveryDocument) {
  const std::string a = text_file("a.txt", "1\n2\n3\n4\n5\n6\n7\n8\n9\n0\n"),
                    b = text_file("b.txt", "no line ends here");
  const Ran ran = run("tokenize --input " + a + " " + b + " --output " + path("t.bin") + " --valid-output " +
                      path("v.bin") + " --valid-fraction 0.25");
  EXPECT_EQ(ran.status, 0) << ran.output;
  EXPECT_EQ(tokens_of(dir_ / "t.bin"), encoded({"1\n2\n3\n4\n5\n6\n7\n8\n", "no line ends"}));
  EXPECT_EQ(tokens_of(dir_ / "v.bin"), encoded({"9\n0\n", " here"}));
}

TEST_F(ToolTest, NeverCutsACharacter) {
  std::string text;
  for (int i = 0; i < 50; ++i) text += "é€𝄞a";
  for (int percent = 1; percent < 100; ++percent) {
    const auto whole = [&](const auto& take) { take(text); };
    const auto at = static_cast<std::size_t>(split_point(whole, std::ssize(text), percent / 100.0));
    ASSERT_LT(at, text.size());
    EXPECT_NE(static_cast<unsigned char>(text[at]) & 0xc0, 0x80) << percent;
    EXPECT_NEAR(static_cast<double>(at), static_cast<double>(text.size()) * (1 - percent / 100.0), 4) << percent;
  }
}

TEST_F(ToolTest, RefusesBadInputAndLeavesNothing) {
  const std::string good = text_file("good.txt", "text"), empty = text_file("empty.txt", "");
  const std::string zipped = gzip_file("zipped.gz", std::string(100000, 'x') + good);
  std::filesystem::resize_file(zipped, std::filesystem::file_size(zipped) - 20);
  const std::string to = " --output " + path("o.bin");
  expect_failure("tokenize --input " + good + " " + path("absent.txt") + to, 1, {"absent.txt", "No such file"});
  expect_failure("tokenize --input " + dir_.path().string() + to, 1, {"directory"});
  expect_failure("tokenize --input " + zipped + to, 1, {"zipped.gz", "damaged gzip"});
  expect_failure("tokenize --input " + good + " --output " + path("absent/o.bin"), 1, {"absent/o.bin"});
  const Ran nothing = run("tokenize --input " + empty + to);
  EXPECT_EQ(nothing.status, 1);
  EXPECT_NE(nothing.output.find("only empty inputs"), std::string::npos) << nothing.output;
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) files += entry.exists() ? 1 : 0;
  EXPECT_EQ(files, 3u) << "only the inputs are there";
}

TEST_F(ToolTest, HasOtherExitStatusesForWrongUseAndBadInput) {
  const std::string good = text_file("good.txt", "text");
  expect_failure("", 2, {"subcommand"});
  expect_failure("tokenize --output x", 2, {"--input"});
  expect_failure("tokenize --input " + good + " --output x --nonsense", 2, {"--nonsense"});
  expect_failure("tokenize --input " + good + " --output x --tokenizer bpe", 2, {"--tokenizer", "bytes"});
  expect_failure("tokenize --input " + good + " --output " + good, 2, {"the same file as --input"});
  expect_failure("tokenize --input " + good + " --output x --valid-output y", 2, {"--valid-fraction"});
  for (const std::string fraction : {"0", "1", "-1", "nan", "half"})
    expect_failure("tokenize --input " + good + " --output x --valid-output y --valid-fraction=" + fraction, 2,
                   {"--valid-fraction", fraction});
  expect_failure("inspect", 2, {"file"});
  EXPECT_EQ(read_text(good), "text");
  for (const std::string fine : {"--help", "tokenize --help", "--version"}) EXPECT_EQ(run(fine).status, 0);
}

TEST_F(ToolTest, InspectsShards) {
  const std::string good = text_file("good.txt", "Two\nlines\x01");
  run("tokenize --input " + good + " --output " + path("o.bin"));
  const Ran ran = run("inspect " + path("o.bin"));
  EXPECT_EQ(ran.status, 0);
  for (const std::string part : {"11 tokens", "uint16", "256 (token 10)", "84 119 111", "Two\\nlines\\x01<256>"})
    EXPECT_NE(ran.output.find(part), std::string::npos) << part << "\n" << ran.output;
  std::filesystem::resize_file(dir_ / "o.bin", 1040);
  expect_failure("inspect " + path("o.bin"), 1, {"o.bin", "1040 bytes", "expected 1046"});
}

TEST_F(ToolTest, InspectsRecords) {
  const RoutingRecordInfo info = small_info();
  RoutingRecord record = RoutingRecord::create(dir_ / "routing.h5", info);
  for (std::int64_t step = 1; step <= 9; ++step) record_step(record, step, info);
  const Ran ran = run("inspect " + path("routing.h5"));  // while it is being written
  EXPECT_EQ(ran.status, 0) << ran.output;
  for (const std::string part : {"routescope routing 1.3", "4 reads x 3 sources", "steps 2 -> 8", "loss 2.5 -> 0.5",
                                 "/alpha_mean", "[4, 4, 3]", "nat/token"})
    EXPECT_NE(ran.output.find(part), std::string::npos) << part << "\n" << ran.output;
  {
    hdf5::File other = hdf5::File::create(dir_ / "other.h5");
    other.write("tokens", std::vector<std::int32_t>{1, 2}, {1, 2});
    other.close();
  }
  EXPECT_NE(run("inspect " + path("other.h5")).output.find("/tokens"), std::string::npos);
}

TEST_F(ToolTest, InspectsCheckpoints) {
  std::filesystem::create_directories(dir_ / "step-00000008");
  write_text_atomically(dir_ / "step-00000008" / "config.json", "{}");
  expect_failure("inspect " + path("step-00000008"), 1, {"MANIFEST.json", "incomplete"});
  write_manifest(dir_ / "step-00000008");
  const Ran ran = run("inspect " + path("step-00000008"));
  EXPECT_EQ(ran.status, 0);
  EXPECT_NE(ran.output.find("config.json"), std::string::npos) << ran.output;
  EXPECT_NE(ran.output.find("no training state"), std::string::npos) << ran.output;
  text_file("step-00000008/config.json", "[]");
  expect_failure("inspect " + path("step-00000008"), 1, {"config.json", "SHA-256"});
  text_file("step-00000008/train_state-00001-of-00002.safetensors", "a");
  write_manifest(dir_ / "step-00000008");
  expect_failure("inspect " + path("step-00000008"), 1, {"found 1 train_state files, expected 2"});
  text_file("step-00000008/train_state-00002-of-00002.safetensors", "b");
  write_manifest(dir_ / "step-00000008");
  const Ran ranks = run("inspect " + path("step-00000008"));
  EXPECT_EQ(ranks.status, 0);
  EXPECT_NE(ranks.output.find("training state of 2 ranks"), std::string::npos) << ranks.output;
}

}  // namespace
}  // namespace routescope::data
