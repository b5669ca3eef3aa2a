// Text is read from plain and compressed files whole and unchanged, or refused with its place.
#include "data/tokens/text_file.h"

#include <archive.h>
#include <archive_entry.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <fstream>
#include <random>

#include "data/base/files.h"
#include "data/tokens/tokenize.h"
#include "tests/data/base/expect_error.h"
#include "tests/data/base/temp_dir.h"

namespace routescope::data {
namespace {

constexpr std::size_t piece = 1 << 18;  // of a TextFile

class TextFileTest : public ::testing::Test {
 protected:
  std::filesystem::path write(const std::string& name, const std::string& bytes) const {
    std::ofstream(dir_ / name, std::ios::binary) << bytes;
    return dir_ / name;
  }
  /// `text`, compressed by the filter of this name.
  std::string compressed(const std::string& text, const std::string& filter) const {
    const std::unique_ptr<archive, int (*)(archive*)> out(::archive_write_new(), ::archive_write_free);
    EXPECT_EQ(::archive_write_add_filter_by_name(out.get(), filter.c_str()), ARCHIVE_OK);
    ::archive_write_set_format_raw(out.get());
    ::archive_write_set_bytes_in_last_block(out.get(), 1);
    ::archive_write_open_filename(out.get(), (dir_ / "compressed").c_str());
    archive_entry* entry = ::archive_entry_new();
    ::archive_entry_set_filetype(entry, AE_IFREG);
    ::archive_write_header(out.get(), entry);
    ::archive_write_data(out.get(), text.data(), text.size());
    ::archive_entry_free(entry);
    ::archive_write_close(out.get());
    return read_text(dir_ / "compressed");
  }
  std::string text_of(const std::filesystem::path& file, bool any_bytes = false) const {
    TextFile in(file, any_bytes);
    std::string out;
    for (std::string_view next = in.next(); !next.empty(); next = in.next()) out += next;
    return out;
  }
  void expect_refused(const std::string& bytes, const std::vector<std::string>& parts) const {
    std::vector<std::string> all{(dir_ / "x").string()};
    all.insert(all.end(), parts.begin(), parts.end());
    expect_error([&] { text_of(write("x", bytes)); }, all);
  }
  TempDir dir_;
};

/// Text whose compressed forms are long: several pieces of random letters, and characters of several bytes.
std::string long_text() {
  std::mt19937 random(1);
  std::string out;
  while (out.size() < 3 * piece) out += static_cast<char>('a' + random() % 26), out += random() % 9 == 0 ? "é" : "日";
  return out;
}

TEST_F(TextFileTest, ReadsEveryCompression) {
  const std::string text = long_text();
  EXPECT_EQ(text_of(write("plain", text)), text);
  for (const std::string filter : {"gzip", "bzip2", "xz", "zstd"}) {
    const std::string bytes = compressed(text, filter);
    EXPECT_EQ(text_of(write("one", bytes)), text) << filter;
    EXPECT_EQ(text_of(write("two", bytes + compressed("more", filter))), text + "more") << filter;
    EXPECT_EQ(text_of(write("none", compressed("", filter))), "") << filter;
    EXPECT_EQ(text_of(write("none", compressed("", filter) + bytes)), text) << filter;
  }
  EXPECT_EQ(text_of(write("empty", "")), "");
}

TEST_F(TextFileTest, DamageIsRefused) {
  const std::string text = long_text();
  for (const std::string filter : {"gzip", "bzip2", "xz", "zstd"}) {
    const std::string bytes = compressed(text, filter);
    for (const std::size_t cut : {std::size_t{1}, std::size_t{10}, bytes.size() / 2, bytes.size() - 12})
      EXPECT_THROW(text_of(write("x", bytes.substr(0, bytes.size() - cut))), Error) << filter << " without " << cut;
    for (const std::string& after : {std::string("garbage that follows"), std::string(1, 'x'), text})
      expect_refused(bytes + after, {});
    // zstd's frames have a checksum only if their writer wants it.
    for (std::size_t at = 20; at < bytes.size() && filter != "zstd"; at += bytes.size() / 20) {
      std::string flipped = bytes;
      flipped[at] = static_cast<char>(flipped[at] ^ 16);
      EXPECT_THROW(text_of(write("x", flipped), true), Error) << filter << " byte " << at;
    }
  }
  expect_refused(compressed(text, "gzip") + "after", {"damaged gzip", "bytes of text"});
  expect_refused("\x1f\x8b", {"damaged gzip", "too early"});
}

TEST_F(TextFileTest, OtherThanTextIsRefusedWithItsPlace) {
  const std::string a(piece - 1, 'a');
  expect_refused(std::string("ab\0c", 4), {"offset 2 of the text", "NUL", "--any-bytes"});
  expect_refused(a + a + std::string("\0", 1), {fmt::format("offset {}", 2 * piece - 2), "NUL"});
  expect_refused("abc\xe9t", {"offset 3", "byte 0xe9", "UTF-8"});
  for (const std::string cut : {"\xc3", "\xe6\x97", "\xf0\x9f\x98"}) {
    expect_refused(a + cut, {fmt::format("offset {}", piece - 1)});        // the end within a character
    expect_refused(a + cut + "b", {fmt::format("offset {}", piece - 1)});  // and the start of the next piece
  }
  for (const std::string whole : {"é", "日", "😀"}) EXPECT_EQ(text_of(write("x", a + whole + "b")), a + whole + "b");
  expect_refused(std::string("\xff\xfeh\0i\0", 6), {"offset 0", "UTF-16"});
  expect_refused(std::string("\xfe\xff\0h\0i", 6), {"offset 0", "UTF-16"});
  expect_refused(std::string("h\0i\0", 4), {"offset 1", "NUL"});
  std::string tar(1024, '\0');
  tar.replace(0, 5, "a.txt").replace(257, 5, "ustar");
  expect_refused(tar, {"a tar archive"});
  expect_refused(compressed(tar, "gzip"), {"a tar archive"});
  expect_refused(compressed(std::string("ab\0c", 4), "zstd"), {"offset 2 of the text"});
  EXPECT_EQ(text_of(write("x", tar), true), tar);
  expect_error([&] { text_of(dir_.path()); }, {dir_.path().string(), "a directory"});
  expect_error([&] { text_of("/dev/zero"); }, {"/dev/zero: found a device"});
  expect_error([&] { text_of(dir_ / "absent"); }, {"absent: cannot open"});
}

// A small file that expands to a large text is not in memory as a whole.
TEST_F(TextFileTest, LargeTextsAreStreamed) {
  constexpr std::size_t members = 500;
  const std::string member = compressed(std::string(1 << 20, 'a'), "gzip");
  std::string small;
  for (std::size_t i = 0; i < members; ++i) small += member;
  const auto file = write("x", small);
  rusage before{}, after{};
  ::getrusage(RUSAGE_SELF, &before);
  std::size_t count = 0;
  TextFile in(file, false);
  for (std::string_view next = in.next(); !next.empty(); next = in.next()) count += next.size();
  ::getrusage(RUSAGE_SELF, &after);
  EXPECT_EQ(count, members << 20);
  EXPECT_LE(after.ru_maxrss - before.ru_maxrss, 64 << 10);  // KiB
}

/// The rule of split_point(), of a text as a whole.
std::size_t split_of(const std::string& text, double fraction) {
  auto at = static_cast<std::size_t>(static_cast<double>(text.size()) * (1 - fraction));
  if (at == 0 || at >= text.size()) return at;
  const std::size_t line = text.find('\n', at - 1);
  if (line != std::string::npos && line + 1 < text.size()) return line + 1;
  while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) ++at;
  return at;
}

TEST_F(TextFileTest, SplitsDoNotDependOnPieces) {
  std::mt19937 random(2);
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (std::size_t parts = random() % 12; parts > 0; --parts)
      text += std::array<const char*, 5>{"a", "\n", "é", "日", "😀"}[random() % 5];
    const double fraction = static_cast<double>(1 + random() % 99) / 100;
    const std::size_t size = 1 + random() % 5;
    const auto pieces = [&](const auto& take) {
      for (std::size_t at = 0; at < text.size() && take(std::string_view(text).substr(at, size)); at += size) {
      }
    };
    EXPECT_EQ(split_point(pieces, std::ssize(text), fraction), static_cast<std::int64_t>(split_of(text, fraction)))
        << text;
  }
}

}  // namespace
}  // namespace routescope::data
